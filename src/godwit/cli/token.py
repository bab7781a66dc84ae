"""`godwit token create|list|revoke`: API tokens of a running platform."""

import argparse
import sys
from typing import Any

from godwit.cli.platform_client import client_of
from godwit.cli.table import when
from godwit.cli.user import ROLES, add_verb, may, print_table


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    token = commands.add_parser(
        "token",
        help="API tokens for programs",
        description="Make, list and revoke API tokens of a running platform.",
        epilog="Example: godwit token create grafana --role viewer --scope telemetry:read",
    )
    verbs = token.add_subparsers(title="commands", metavar="command", required=True)
    create = add_verb(
        verbs, "create", "make a token; it is printed this once",
        "godwit token create grafana --role viewer --scope telemetry:read --expires 90d", _create,
    )  # fmt: skip
    create.add_argument("name", metavar="NAME", help="what it is for")
    create.add_argument("--role", choices=ROLES, help="(default: all that you have)")
    create.add_argument("--tenant", action="append", metavar="TENANT", help="where; may be said again (default: all)")
    create.add_argument(
        "--scope", action="append", default=[], metavar="NOUN:VERB", help="only for this; may be said again"
    )
    create.add_argument("--expires", default="90d", metavar="TIME", help="such as 12h, 90d, or never (default: 90d)")
    listing = add_verb(verbs, "list", "list tokens", "godwit token list --all", _list)
    listing.add_argument("--all", action="store_true", help="those of others that you administer, too")
    revoke = add_verb(verbs, "revoke", "revoke a token, at once", "godwit token revoke 1f2e3d4c5b6a", _revoke)
    revoke.add_argument("token_id", metavar="ID", help="as `godwit token list` shows it")


def _create(options: argparse.Namespace) -> None:
    body: dict[str, Any] = {
        "name": options.name, "scopes": options.scope,
        "expiresIn": None if options.expires == "never" else options.expires,
    }  # fmt: skip
    if options.role or options.tenant:
        body["grants"] = dict.fromkeys(options.tenant or ["*"], options.role or "viewer")
    made = client_of(options).call("POST", "/api/v1/tokens", body)
    # the secret alone on standard output: `TOKEN=$(godwit token create ...)`
    print(
        f"{made['tokenId']} {made['name']}, until {when(made['expires'], 'it is revoked')}; shown this once:",
        file=sys.stderr,
    )
    print(made["secret"])


def _list(options: argparse.Namespace) -> None:
    tokens = client_of(options).call("GET", f"/api/v1/tokens{'?all=true' if options.all else ''}")["items"]
    if not tokens:
        print("No tokens. A program gets one by: godwit token create NAME --role viewer")
        return
    rows = [
        (
            each["tokenId"], each["owner"], each["name"],
            may(each),
            " ".join(each["scopes"]) or "all", "revoked" if each["revoked"] else when(each["expires"], "never ends"),
            when(each["lastUsed"], "never"),
        )
        for each in tokens
    ]  # fmt: skip
    print_table(("ID", "OWNER", "NAME", "MAY", "SCOPES", "UNTIL", "LAST USED"), rows)


def _revoke(options: argparse.Namespace) -> None:
    client_of(options).call("DELETE", f"/api/v1/tokens/{options.token_id}")
    print(f"{options.token_id} is revoked")
