"""`godwit device token` and `godwit device key`: credentials of devices that have no certificate."""

import argparse
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from godwit.cli.platform_client import add_server_arguments, client_of
from godwit.cli.table import table, when
from godwit.contract.errors import RejectedError

OF_TOKENS: Final = """examples:
  godwit device token meter-3 > meter-3.token          make one; it is shown once
  godwit device token meter-3 --days 365 --name hall   that ends after a year
  godwit device token meter-3 --list
  godwit device token meter-3 --revoke 5f1d0c9a77e0b2d4

The device connects by TLS: user name meter-3, password the token.
"""
OF_KEYS: Final = """examples:
  openssl ecparam -name prime256v1 -genkey -noout -out meter-3.key     on the device; the key stays there
  openssl ec -in meter-3.key -pubout -out meter-3.pub
  godwit device key meter-3 meter-3.pub                                register the public half
  godwit device key meter-3 --list
  godwit device key meter-3 --retire 9c56...

The device connects by TLS: user name meter-3, password a JWT signed by the key (ES256; aud godwit; at most 24 h).
"""


def add_parsers(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the actions."""
    token = actions.add_parser(
        "token", help="make, list or revoke a device's tokens", description="Make, list or revoke a device's tokens.",
        epilog=OF_TOKENS, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    token.add_argument("device_id", metavar="ID", help="of the device")
    token.add_argument("--name", default="", help="what it is for")
    token.add_argument("--days", type=int, default=0, metavar="N", help="it ends after N days (default: never)")
    which = token.add_mutually_exclusive_group()
    which.add_argument("--list", action="store_true", help="show those that there are")
    which.add_argument("--revoke", metavar="TOKEN_ID", help="end one; its session ends within a second")
    add_server_arguments(token)
    token.set_defaults(run=run_token)
    key = actions.add_parser(
        "key", help="register, list or retire the keys with which a device signs its tokens",
        description="Register, list or retire the keys with which a device signs its tokens.",
        epilog=OF_KEYS, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    key.add_argument("device_id", metavar="ID", help="of the device")
    key.add_argument("file", nargs="?", type=Path, metavar="FILE", help="PEM of the public key")
    key.add_argument("--list", action="store_true", help="show those that there are")
    key.add_argument("--retire", metavar="KEY_ID", help="end one; what it signed counts no more")
    add_server_arguments(key)
    key.set_defaults(run=run_key)


def run_token(options: argparse.Namespace) -> int:
    """Make, list or revoke."""
    client, path = client_of(options), f"/api/v1/devices/{quote(options.device_id, safe='')}/tokens"
    if options.list:
        _show(client.call("GET", path)["items"], "tokenId", "revoked")
    elif options.revoke:
        client.call("POST", f"{path}/{quote(options.revoke, safe='')}/revoke")
        print(f"{options.revoke} is revoked", file=sys.stderr)
    else:
        made = client.call("POST", path, {"name": options.name, "lifetimeS": options.days * 86_400})
        print(f"Token {made['tokenId']} of {options.device_id}; it is shown this once:", file=sys.stderr)
        print(made["token"])
    return 0


def run_key(options: argparse.Namespace) -> int:
    """Register, list or retire. Raises RejectedError (`file-missing`)."""
    client, path = client_of(options), f"/api/v1/devices/{quote(options.device_id, safe='')}/keys"
    if options.list:
        _show(client.call("GET", path)["items"], "keyId", "retired")
    elif options.retire:
        client.call("POST", f"{path}/{quote(options.retire, safe='')}/retire")
        print(f"{options.retire} is retired", file=sys.stderr)
    elif options.file is None:
        raise RejectedError("say the FILE of a public key, --list, or --retire KEY_ID", code="file-missing")
    else:
        try:
            pem = options.file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise RejectedError(f"{options.file} cannot be read: {error}", code="file-missing") from error
        print(client.call("POST", path, {"public": pem})["keyId"])
    return 0


def _show(items: list[dict[str, Any]], name: str, end: str) -> None:
    if not items:
        print("none", file=sys.stderr)
        return
    heads = ("token" if name == "tokenId" else "key", "made", "state", "until", "name")
    rows = [
        (
            each[name], when(each["created"], ""), f"{end} {when(each[end], '')}" if each[end] else "in use",
            when(each.get("expires"), f"until {end}"), each.get("name", ""),
        )
        for each in items
    ]  # fmt: skip
    print(table(heads, rows))
