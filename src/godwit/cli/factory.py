"""`godwit factory`: trust the authority of a factory or a customer, by who proves that he has its key."""

import argparse
import json
from pathlib import Path
from typing import Final
from urllib.parse import quote

from godwit.cli.landing import add_landing_arguments, landing_from, read_pem
from godwit.cli.platform_client import add_server_arguments, client_of
from godwit.cli.table import table, when
from godwit.contract.errors import RejectedError

KINDS: Final = ("factory", "customer")
EXAMPLES: Final = """Examples:
  godwit factory add works-ca.pem --ids 'pump-*' --just-in-time --group pumps
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout proof.key \\
      -subj "/CN=<the code>" -out proof.csr
  openssl x509 -req -in proof.csr -CA works-ca.pem -CAkey works-ca.key -CAcreateserial -days 1 -out proof.pem
  godwit factory prove <fingerprint> proof.pem
  godwit factory list
  godwit factory change <fingerprint> --ids 'pump-*' --ids 'fan-*' --no-just-in-time"""


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
    _add_more(actions)


def _add_more(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    listing = actions.add_parser(
        "list", help="list the authorities that are trusted", description="Example: godwit factory list --json"
    )
    listing.add_argument("--json", action="store_true", help="print the API's documents")
    add_server_arguments(listing)
    listing.set_defaults(run=show)
    changing = actions.add_parser(
        "change",
        help="change what an authority may do",
        description="Change the terms of an authority. What is not said stays. Narrower terms count for what is\n"
        "enrolled next; who came in by the wider ones stays, and `godwit audit` names him.",
        epilog="Examples: godwit factory change FINGERPRINT --ids 'pump-*' --ids 'fan-*'\n"
        "          godwit factory change FINGERPRINT --any-id --no-just-in-time\n"
        "          godwit factory change FINGERPRINT --group pumps --tag hall:2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    changing.add_argument("fingerprint", metavar="FINGERPRINT", help="of the authority, or how it begins")
    names = changing.add_mutually_exclusive_group()
    names.add_argument("--ids", action="append", metavar="PATTERN", help="the only ones it may name; again for more")
    names.add_argument("--any-id", action="store_true", help="it may name any device of its tenant")
    changing.add_argument("--just-in-time", action=argparse.BooleanOptionalAction, help="take in unknown devices")
    changing.add_argument("--name", help="what it is called")
    changing.add_argument("--nowhere", action="store_true", help="its devices land by the rules alone")
    add_landing_arguments(changing)
    add_server_arguments(changing)
    changing.set_defaults(run=change)


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
    print(f"Sign a certificate with this code as its CN before {when(told['expires'], '')}, then:")
    print(f"  godwit factory prove {told['fingerprint']} proof.pem")
    return 0


def prove(options: argparse.Namespace) -> int:
    """Prove an authority; returns the exit code."""
    where = f"/api/v1/authorities/{quote(options.fingerprint, safe='')}/proof"
    trusted = client_of(options).call("POST", where, {"certificate": read_pem(options.proof)})
    print(f"{trusted['name']} vouches for devices of {trusted['tenant']}")
    return 0


def show(options: argparse.Namespace) -> int:
    """List the authorities that are trusted; returns the exit code."""
    found = [each for each in client_of(options).call("GET", "/api/v1/authorities")["items"] if each["kind"] in KINDS]
    if options.json:
        print(json.dumps({"items": found}, indent=2))
        return 0
    lines = [
        (
            each["fingerprint"][:16], each["name"], each["kind"], each["tenant"],
            ", ".join(each["terms"]["ids"]) or "any",
            "yes" if each["terms"]["justInTime"] else "no", when(each["notAfter"], "never"),
        )
        for each in found
    ]  # fmt: skip
    heads = ("authority", "name", "kind", "tenant", "ids", "just in time", "until")
    print(table(heads, lines) if lines else "No authority of a factory or customer is trusted.")
    return 0


def change(options: argparse.Namespace) -> int:
    """Change an authority's terms, unless somebody else does meanwhile; returns the exit code."""
    client = client_of(options)
    items = client.call("GET", "/api/v1/authorities")["items"]
    begins = options.fingerprint.lower().replace(":", "")
    known = [each for each in items if each["kind"] in KINDS and each["fingerprint"].startswith(begins)]
    if len(known) != 1:
        said = "several authorities begin like that" if known else "no authority of a factory or customer is called so"
        raise RejectedError(f"{options.fingerprint}: {said}; see: godwit factory list", code="not-found")
    landing = landing_from(options)
    given = {
        "name": options.name,
        "ids": [] if options.any_id else options.ids,
        "justInTime": options.just_in_time,
        "landing": landing if options.nowhere or any(landing.values()) else None,
    }
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise RejectedError("say what is to be another: --ids, --any-id, --just-in-time, --name ...", code="usage")
    where = f"/api/v1/authorities/{known[0]['fingerprint']}"
    mark = client.mark(where)
    changed = json.loads(client.raw("PATCH", where, json.dumps(body).encode(), {"if-match": mark}))
    terms = changed["terms"]
    ids = ", ".join(terms["ids"]) or f"any device of {changed['tenant']}"
    how = "unknown ones are taken in" if terms["justInTime"] else "unknown ones have to enroll"
    print(f"{changed['name']} may name {ids}; {how}")
    return 0
