"""The command `godwit`: finds the command's module, runs it, and turns errors into one sentence and an exit code.

Exit codes: 0 done (also after Ctrl-C on something that runs until then), 1 refused or failed with a sentence, 2 wrong
usage. Rooms are imported by the command that needs them, so that `--help` is quick and a base install has it too.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from godwit.cli import (
    audit,
    ca,
    claim,
    config,
    device,
    factory,
    mosquitto_files,
    mqtt,
    rule,
    simulate,
    tenant,
    token,
    trace,
    up,
    user,
)
from godwit.contract.errors import GodwitError

EXIT_FAILED = 1
EXIT_USAGE = 2


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="godwit",
        description="Self-hosted IoT platform: an acknowledgement means stored.",
        epilog="Every command explains itself: godwit up --help",
    )
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)
    up.add_parser(commands)
    simulate.add_parser(commands)
    device.add_parser(commands)
    mqtt.add_parser(commands)
    trace.add_parser(commands)
    claim.add_parser(commands)
    rule.add_parser(commands)
    factory.add_parser(commands)
    audit.add_parser(commands)
    mosquitto_files.add_parser(commands)
    tenant.add_parser(commands)
    user.add_parser(commands)
    token.add_parser(commands)
    ca.add_parser(commands)
    config.add_parser(commands)
    version = commands.add_parser(
        "version", help="print the version", description="Print the version. Example: godwit version"
    )
    version.set_defaults(run=_version)
    return parser


def _version(_: argparse.Namespace) -> int:
    from importlib.metadata import version  # noqa: PLC0415 - slow to import, rarely asked

    print(f"godwit {version('godwit')}")
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the usage and the examples of the very command that was meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is too much here, where the usage is known, and not in `godwit` itself."""
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return options, rest

    def error(self, message: str) -> NoReturn:
        """Print usage, examples and what is wrong; exit code 2."""
        self.print_usage(sys.stderr)
        if self.epilog:
            print(self.epilog.rstrip(), file=sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int | None] = options.run
    try:
        return command(options) or 0
    except GodwitError as error:
        print(f"godwit: {error}", file=sys.stderr)
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("godwit"):
            raise
        print(f"godwit: this command needs the package {error.name!r}: pip install 'godwit[server]'", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # `godwit config | head`
        sys.stderr.close()
        return 0
    except OSError as error:  # a file or directory that somebody named: it says which, and what is wrong with it
        print(f"godwit: {error.filename or 'this machine'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILED


def main() -> NoReturn:
    """Run the command of this process."""
    sys.exit(run())


if __name__ == "__main__":
    main()
