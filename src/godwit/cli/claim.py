"""`godwit claim`: tokens with which devices without identity ask for one."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from godwit.cli.landing import add_landing_arguments, landing_from, seconds
from godwit.cli.platform_client import add_server_arguments, client_of
from godwit.cli.table import table, when
from godwit.contract.errors import RejectedError
from godwit.runtime.files import write_whole

EXAMPLES: Final = """Examples:
  godwit claim create                               one new device, any free id, within 7 days
  godwit claim create --device press-7              one new device of this id; or other hardware under it
  godwit claim create --fleet --ids 'pump-*' --uses 500 --expires 30d --group pumps
  godwit claim create --device press-7 --qr         with a QR code to scan
  godwit claim list
  godwit claim revoke 9f1c2d3e4a5b6c7d"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "claim",
        help="make, list and revoke claim tokens for new devices",
        description="A device without identity proves by a claim token that it may have one. A one-time token belongs "
        "to the first key that asks with it, and is spent when the new certificate first connects.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="action", required=True)
    _add_create(actions)
    listing = actions.add_parser(
        "list", help="list claims", description="List claims. Example: godwit claim list --json"
    )
    listing.add_argument("--json", action="store_true", help="print the API's document")
    add_server_arguments(listing)
    listing.set_defaults(run=show)
    revoking = actions.add_parser(
        "revoke",
        help="revoke a claim",
        description="Revoke a claim: it opens nothing from now on; certificates that it gave stay. "
        "Example: godwit claim revoke 9f1c2d3e4a5b6c7d",
    )
    revoking.add_argument("claim", metavar="CLAIM", help="its id, as listed")
    add_server_arguments(revoking)
    revoking.set_defaults(run=revoke)


def _add_create(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "create",
        help="make a claim, and print its token",
        description="Make a claim, and print its token: nobody can show it again. Everything else goes to standard\n"
        "error, so that the token can be piped.",
        epilog="Examples: godwit claim create --device press-7 --out press-7.claim\n"
        "          godwit claim create --fleet --ids 'pump-*' --uses 500 --expires 30d --group pumps",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--device", metavar="ID", help="the only id; if the device exists, its hardware is replaced")
    what.add_argument("--fleet", action="store_true", help="for many devices, until it expires or is used up")
    parser.add_argument(
        "--ids", action="append", default=[], metavar="PATTERN", help="such as 'pump-*'; again for more"
    )
    parser.add_argument("--uses", type=int, metavar="N", help="of a fleet claim: how many devices")
    parser.add_argument("--expires", type=seconds, default=seconds("7d"), metavar="TIME", help="(default 7d; 0: never)")
    parser.add_argument("--name", default="", help="what it is for")
    parser.add_argument("--tenant", metavar="NAME", help="(default: your own)")
    parser.add_argument("--revoke-now", action="store_true", help="with --device: the old hardware is out at once")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the token there, readable by you only")
    parser.add_argument("--qr", action="store_true", help="show it as a QR code, on a terminal; it holds the token")
    parser.add_argument("--json", action="store_true", help="print the API's document, with the token")
    add_landing_arguments(parser)
    add_server_arguments(parser)
    parser.set_defaults(run=create)


def create(options: argparse.Namespace) -> int:
    """Make a claim; returns the exit code. Raises RejectedError, before one is made that could not be kept."""
    client = client_of(options)
    if options.out is not None and not os.access(options.out.absolute().parent, os.W_OK):
        raise RejectedError(f"{options.out} cannot be written: no claim was made", code="file-unwritable")
    if options.revoke_now:
        if not options.device:
            raise RejectedError("--revoke-now needs --device ID", code="invalid-option")
        body: dict[str, Any] = {"revokeNow": True, "lifetimeS": options.expires}
        made = client.call("POST", f"/api/v1/devices/{quote(options.device, safe='')}/replace", body)
    else:
        body = {
            "name": options.name, "kind": "fleet" if options.fleet else "one-time", "ids": options.ids,
            "lifetimeS": options.expires, "landing": landing_from(options),
        }  # fmt: skip
        given = {"tenant": options.tenant, "deviceId": options.device, "usesMax": options.uses}
        made = client.call("POST", "/api/v1/claims", body | {name: value for name, value in given.items() if value})
    token = made["token"]
    if options.qr:
        _show_code(made["link"])
    if options.json:
        print(json.dumps(made, indent=2))
    elif options.out is not None:
        write_whole(options.out, f"{token}\n".encode(), mode=0o600)
    else:
        print(token)
    where = f", in {options.out}" if options.out is not None else ": keep it, it is not shown again"
    print(f"claim {made['claimId']} of {made['tenant']}, {_good_for(made)}{where}", file=sys.stderr)
    return 0


def _show_code(link: str) -> None:
    """Draw a link on the terminal: to standard error, so that the token can still be piped."""
    import segno  # noqa: PLC0415 - the other commands do without

    segno.make(link, error="l", micro=False).terminal(sys.stderr, compact=True)


def show(options: argparse.Namespace) -> int:
    """List claims; returns the exit code."""
    document = client_of(options).call("GET", "/api/v1/claims")
    if options.json:
        print(json.dumps(document, indent=2))
        return 0
    rows = [
        (
            each["claimId"], each["state"], each["kind"], each["tenant"], each["deviceId"] or each["ids"] or "any id",
            f"{each['uses']}/{each['usesMax'] or 'any'}", when(each["expires"], "never"), each["name"],
        )
        for each in document["items"]
    ]  # fmt: skip
    print(table(("claim", "state", "kind", "tenant", "for", "uses", "expires", "name"), rows) if rows else "No claims.")
    return 0


def revoke(options: argparse.Namespace) -> int:
    """Revoke a claim; returns the exit code."""
    client_of(options).call("POST", f"/api/v1/claims/{quote(options.claim, safe='')}/revoke")
    print(f"claim {options.claim} is revoked")
    return 0


def _good_for(claim: dict[str, Any]) -> str:
    devices = claim["deviceId"] or ", ".join(claim["ids"]) or "any free id"
    uses = "once" if claim["kind"] == "one-time" else f"{claim['usesMax'] or 'any number of'} times"
    return f"good {uses} for {devices} until {when(claim['expires'], 'it is revoked')}"
