"""`godwit factory`: trust the authority of a factory or a customer, by who proves that he has its key."""

import argparse
from pathlib import Path
from typing import Final
from urllib.parse import quote

from godwit.cli.landing import add_landing_arguments, landing_from, read_pem
from godwit.cli.platform_client import add_server_arguments, client_of

EXAMPLES: Final = """Examples:
  godwit factory add works-ca.pem --ids 'pump-*' --just-in-time --group pumps
  openssl req -new -key works-ca.key -subj "/CN=<the code>" -out proof.csr
  openssl x509 -req -in proof.csr -CA works-ca.pem -CAkey works-ca.key -days 1 -out proof.pem
  godwit factory prove <fingerprint> proof.pem"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "factory",
        help="trust the authority of a factory or customer for a tenant's devices",
        description="A factory's certificates open enrollment for the device in their CN, or (--just-in-time) the "
        "door itself. The authority belongs to one tenant; whoever registers it proves that he has its key.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="action", required=True)
    adding = actions.add_parser(
        "add",
        help="announce an authority, and get the code that it has to sign",
        description="Announce an authority. Example: godwit factory add works-ca.pem --ids 'pump-*' --just-in-time",
    )
    adding.add_argument("certificate", type=Path, metavar="FILE", help="of the authority, PEM")
    adding.add_argument("--kind", choices=("factory", "customer"), default="factory", help="(default factory)")
    adding.add_argument("--ids", action="append", default=[], metavar="PATTERN", help="it may name; again for more")
    adding.add_argument("--just-in-time", action="store_true", help="unknown devices are taken in at first connect")
    adding.add_argument("--name", default="", help="(default: its subject)")
    adding.add_argument("--tenant", metavar="NAME", help="(default: your own)")
    add_landing_arguments(adding)
    add_server_arguments(adding)
    adding.set_defaults(run=add)
    proving = actions.add_parser(
        "prove",
        help="show a certificate with the code as CN, signed by the authority",
        description="Prove that one has the authority's key. Example: godwit factory prove FINGERPRINT proof.pem",
    )
    proving.add_argument("fingerprint", metavar="FINGERPRINT", help="of the authority, as `add` printed it")
    proving.add_argument("proof", type=Path, metavar="FILE", help="PEM")
    add_server_arguments(proving)
    proving.set_defaults(run=prove)


def add(options: argparse.Namespace) -> int:
    """Announce an authority; returns the exit code."""
    body = {
        "certificate": read_pem(options.certificate), "kind": options.kind, "ids": options.ids,
        "justInTime": options.just_in_time, "name": options.name, "landing": landing_from(options),
    }  # fmt: skip
    if options.tenant:
        body["tenant"] = options.tenant
    told = client_of(options).call("POST", "/api/v1/authorities/trusted", body)
    print(f"fingerprint  {told['fingerprint']}")
    print(f"code         {told['commonName']}")
    print(f"Sign a certificate with this code as its CN before {told['expires']}, then:")
    print(f"  godwit factory prove {told['fingerprint']} proof.pem")
    return 0


def prove(options: argparse.Namespace) -> int:
    """Prove an authority; returns the exit code."""
    where = f"/api/v1/authorities/{quote(options.fingerprint, safe='')}/proof"
    trusted = client_of(options).call("POST", where, {"certificate": read_pem(options.proof)})
    print(f"{trusted['name']} vouches for devices of {trusted['tenant']}")
    return 0
