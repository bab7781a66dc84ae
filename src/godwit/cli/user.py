"""`godwit user add|list|grant|disable|enable|password|remove`: who signs in to a running platform."""

import argparse
import getpass
import secrets
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from godwit.cli.platform_client import add_server_arguments, client_of
from godwit.cli.table import when
from godwit.contract.errors import RejectedError

ROLES = ("viewer", "operator", "admin")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    user = commands.add_parser(
        "user",
        help="who signs in to the console",
        description="Add, list, disable and remove users of a running platform, give them rights and passwords.",
        epilog="Example: godwit user add eve --role operator",
    )
    verbs = user.add_subparsers(title="commands", metavar="command", required=True)
    add = add_verb(verbs, "add", "add a user", "godwit user add eve --role operator --tenant acme", _add)
    add.add_argument("name", metavar="NAME")
    add.add_argument("--role", choices=ROLES, default="viewer", help="(default: viewer)")
    add.add_argument(
        "--tenant", action="append", metavar="TENANT", help="where the role holds; may be said again (default: all)"
    )
    add.add_argument("--display", default="", metavar="TEXT", help="full name")
    add.add_argument("--email", default="", metavar="ADDRESS")
    add.add_argument("--oidc", action="store_true", help="no password: signs in at the OIDC provider")
    _add_password_arguments(add)
    add_verb(verbs, "list", "list users", "godwit user list", _list)
    for verb, text in (("disable", "disable a user: all sessions and tokens end"), ("enable", "let a user in again")):
        add_verb(verbs, verb, text, f"godwit user {verb} eve", _switch).add_argument("name", metavar="NAME")
    password = add_verb(verbs, "password", "give a user a new password", "godwit user password eve", _password)
    password.add_argument("name", metavar="NAME")
    _add_password_arguments(password)
    grant = add_verb(
        verbs, "grant", "give a user other rights, in place of all that they have",
        "godwit user grant eve --role operator --tenant acme", _grant,
    )  # fmt: skip
    grant.add_argument("name", metavar="NAME")
    grant.add_argument("--role", choices=ROLES, required=True)
    grant.add_argument("--tenant", action="append", metavar="TENANT", help="where; may be said again (default: all)")
    remove = add_verb(
        verbs, "remove", "remove a user, with all tokens; what they did stays in the audit log",
        "godwit user remove eve", _remove,
    )  # fmt: skip
    remove.add_argument("name", metavar="NAME")


def add_verb(verbs: Any, name: str, text: str, example: str, run: Any) -> argparse.ArgumentParser:
    """Add a command that asks a running platform, with an example of its use."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"Example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_server_arguments(parser)
    parser.set_defaults(run=run, verb=name)
    return parser


def _add_password_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-stdin", action="store_true", help="read it from standard input (default: one is made and printed)"
    )
    parser.add_argument("--ask", action="store_true", help="ask for it at the terminal")
    parser.add_argument("--keep", action="store_true", help="it need not be changed at the first sign-in")


def _chosen_password(options: argparse.Namespace) -> tuple[str, bool]:
    """Return the password, and whether it was made here."""
    if options.password_stdin:
        return sys.stdin.readline().rstrip("\n"), False
    if options.ask:
        first, again = getpass.getpass("Password: "), getpass.getpass("Once more: ")
        if first != again:
            raise RejectedError("the passwords were not typed alike", code="wrong-password")
        return first, False
    return secrets.token_urlsafe(15), True


def _add(options: argparse.Namespace) -> None:
    body: dict[str, Any] = {
        "name": options.name, "grants": dict.fromkeys(options.tenant or ["*"], options.role),
        "display": options.display, "email": options.email,
    }  # fmt: skip
    made = ""
    if not options.oidc:
        body["password"], is_made = _chosen_password(options)
        body["mustChange"] = not options.keep
        made = body["password"] if is_made else ""
    user = client_of(options).call("POST", "/api/v1/users", body)
    print(f"{user['name']} is added: {may(user)}")
    if made:
        print(f"password: {made}" + ("" if options.keep else "  (to be changed at the first sign-in)"))


def _list(options: argparse.Namespace) -> None:
    users = client_of(options).call("GET", "/api/v1/users")["items"]
    if not users:
        print("No users: only the admin token opens the platform. Add one: godwit user add NAME --role admin")
        return
    rows = [
        (
            each["name"], may(each), "disabled" if each["disabled"] else "active",
            "password" if each["hasPassword"] else "oidc", when(each["lastSignIn"], "never"),
        )
        for each in users
    ]  # fmt: skip
    print_table(("NAME", "MAY", "STATE", "SIGNS IN", "LAST SIGN-IN"), rows)


def _switch(options: argparse.Namespace) -> None:
    is_disabled = options.verb == "disable"
    client_of(options).call("PATCH", f"/api/v1/users/{quote(options.name, safe='')}", {"disabled": is_disabled})
    print(f"{options.name} is {options.verb}d")


def _password(options: argparse.Namespace) -> None:
    password, is_made = _chosen_password(options)
    body = {"password": password, "mustChange": not options.keep}
    client_of(options).call("POST", f"/api/v1/users/{quote(options.name, safe='')}/password", body)
    print(f"{options.name} has a new password" + (f": {password}" if is_made else "") + "; all sessions have ended")


def _grant(options: argparse.Namespace) -> None:
    grants = dict.fromkeys(options.tenant or ["*"], options.role)
    user = client_of(options).call("PATCH", f"/api/v1/users/{quote(options.name, safe='')}", {"grants": grants})
    print(f"{user['name']} may: {may(user)}")


def _remove(options: argparse.Namespace) -> None:
    client_of(options).call("DELETE", f"/api/v1/users/{quote(options.name, safe='')}")
    print(f"{options.name} is removed")


def may(user: dict[str, Any]) -> str:
    """Return what a user or a token may, in words."""
    return ", ".join(role if tenant == "*" else f"{tenant}: {role}" for tenant, role in sorted(user["grants"].items()))


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as what stands in them."""
    widths = [max(len(str(row[at])) for row in (head, *rows)) for at in range(len(head))]
    for row in (head, *rows):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
