"""The server's log, over the standard library's loggers: drawn for people at a terminal, JSON lines elsewhere."""

import datetime as dt
import json
import logging
import sys


class JsonLines(logging.Formatter):
    """A line is an object: what happened, which logger says so, its level, when in UTC, and the exception, if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        when = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="microseconds")
        line = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": when.replace("+00:00", "Z"),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line)


def configure_logs(level: str) -> None:
    """Send all loggers of the process to stderr. Call once, at start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_drawn() if sys.stderr.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "httpx", "engineio", "socketio", "alembic", "websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _drawn() -> logging.Formatter:
    import structlog  # noqa: PLC0415 - 5 MB with what draws for it; nobody looks at a service's stderr

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer(),  # draws exceptions itself
        ],
    )
