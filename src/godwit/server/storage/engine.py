"""The SQLAlchemy engine.

SQLite (WAL) in the data directory, or PostgreSQL by DATABASE_URL; migrated when it is opened.
"""

import logging
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from godwit.contract.errors import UnavailableError
from godwit.server.storage import account_tables, identity_tables  # noqa: F401 - `metadata` learns of them
from godwit.server.storage.liveness import watch
from godwit.server.storage.tables import metadata

log = logging.getLogger(__name__)

HEAD: Final = "0002"
"""The newest migration; a test compares it with the scripts. Alembic is only loaded when a database is older."""

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def open_engine(database_url: str, data_dir: Path) -> sa.Engine:
    """Open the registry's database at its newest schema. Raises UnavailableError when it cannot be reached."""
    if database_url and not database_url.startswith("sqlite"):
        engine = sa.create_engine(database_url, pool_size=5, max_overflow=10)
        watch(engine)
    else:
        url = database_url or f"sqlite:///{data_dir / 'registry.sqlite'}"
        engine = sa.create_engine(url, connect_args={"timeout": 10})
        sa.event.listen(engine, "connect", _prepare_sqlite)
    try:
        migrate(engine)
    except sa.exc.OperationalError as error:
        engine.dispose()
        raise UnavailableError(
            f"the registry's database cannot be opened: {error.orig}; check DATABASE_URL", code="registry-unavailable"
        ) from error
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # FULL: a device that registered itself is acknowledged, and must be there after a power cut.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # What is deleted or overwritten is zeros in the file, not free space with a key in it: see `scrubbing`.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _create(engine: sa.Engine) -> None:
    """Make a new database as the migrations would; a test compares the two."""
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def migrate(engine: sa.Engine) -> None:
    """Bring the schema to HEAD."""
    with engine.connect() as connection:
        current = None
        if sa.inspect(connection).has_table("alembic_version"):
            current = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    if current == HEAD:
        return
    if current is None:
        _create(engine)
        return
    from alembic import command  # noqa: PLC0415 - 12 MB that a running platform does without
    from alembic.config import Config  # noqa: PLC0415

    log.info("migrating the registry from %s to %s", current, HEAD)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
