"""`godwit mosquitto-files`: whom a Mosquitto beside the platform trusts, and what each may."""

import argparse
import sys
from pathlib import Path
from typing import Final

from godwit.cli.platform_client import add_server_arguments, client_of
from godwit.contract.errors import RejectedError
from godwit.runtime.files import write_whole

EXAMPLES: Final = """examples:
  godwit mosquitto-files /etc/mosquitto/godwit          write them; then: include_dir, or `cat godwit.conf`
  godwit mosquitto-files /etc/mosquitto/godwit && systemctl reload mosquitto

Mosquitto reads rights and revocation lists again on SIGHUP, and asks the lists at new connections only: who is
connected stays. Then `mosquitto_ctrl dynsec disableClient NAME` closes an open session at once; by itself it keeps
nobody out who shows a certificate.
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "mosquitto-files",
        help="write authorities, revocation lists and rights for a Mosquitto",
        description="Write what a Mosquitto needs to admit the platform's devices by their certificates:\n"
        "authorities.pem, revoked.pem, rights.acl (patterns with %u), and godwit.conf.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="where to write them")
    add_server_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fetch and write; a file is replaced whole, or not at all."""
    directory: Path = options.directory.resolve()
    files = client_of(options).call("GET", "/api/v1/broker/mosquitto-files")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_whole(directory / name, text.replace("{directory}", str(directory)).encode(), mode=0o644)
            print(directory / name)
    except OSError as error:
        raise RejectedError(f"{directory} cannot be written to: {error}", code="file-unwritable") from error
    print("server.crt and server.key are to be put beside them; then send Mosquitto SIGHUP", file=sys.stderr)
    return 0
