"""`godwit tenant`: list, add, limit and remove the tenants of a running platform."""

import argparse
from typing import Any, Final
from urllib.parse import quote

from godwit.cli.platform_client import PlatformClient, client_of
from godwit.cli.user import add_verb

EXAMPLES: Final = """Examples:
  godwit tenant list                                        tenants, their devices and limits
  godwit tenant add acme                                    add one
  godwit tenant quota acme --devices 5000 --messages 500    limit it; 0 takes a limit back
  godwit tenant remove acme                                 remove one that has nothing left
"""
LIMITS: Final = {
    "devices": ("devices", "devices registered"),
    "connections": ("connections", "MQTT connections at the same time"),
    "messages": ("messagesPerS", "MQTT messages per second, of all its clients together"),
    "bytes": ("bytesPerS", "MQTT bytes per second, of all its clients together"),
    "retained": ("retainedBytes", "bytes of retained documents"),
    "quarantine": ("quarantineBytes", "bytes in quarantine"),
    "requests": ("requestsPerS", "API requests per second, of its people and programs"),
}
"""Options by the API's field, and what they limit."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "tenant",
        help="list, add, limit and remove tenants",
        description="List, add, limit and remove tenants: owners of devices that see nothing of each other.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="commands", metavar="command", required=True)
    add_verb(verbs, "list", "list tenants, with their devices and limits", "godwit tenant list", _list)
    for verb, words, run in (("add", "add a tenant", _add), ("remove", "remove an empty tenant", _remove)):
        add_verb(verbs, verb, words, f"godwit tenant {verb} acme", run).add_argument("name", metavar="TENANT")
    example = "godwit tenant quota acme --devices 5000 --messages 500"
    limits = add_verb(verbs, "quota", "show or change what a tenant may use", example, _quota)
    limits.add_argument("name", metavar="TENANT")
    for option, (_field, words) in LIMITS.items():
        limits.add_argument(f"--{option}", type=int, metavar="N", help=f"{words}; 0: what the settings say")


def _path(name: str) -> str:
    return f"/api/v1/tenants/{quote(name, safe='')}"


def _list(options: argparse.Namespace) -> int:
    client = client_of(options)
    names = client.call("GET", "/api/v1/tenants")["items"]
    print(table([client.call("GET", _path(each)) for each in names]))
    return 0


def table(tenants: list[dict[str, Any]]) -> str:
    """Return tenants as a table."""
    rows = [("TENANT", "DEVICES", "CONNECTED", "MESSAGES/S", "LIMITS")]
    rows += [
        (
            each["name"], str(each["devices"]), str(each["use"]["connections"]), f"{each['use']['messagesPerS']:.1f}",
            limits_of(each["quota"]),
        )
        for each in tenants
    ]  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    return "\n".join(
        "  ".join((row[0].ljust(widths[0]), *(row[at].rjust(widths[at]) for at in (1, 2, 3)), row[4])) for row in rows
    )


def limits_of(quota: dict[str, int]) -> str:
    """Return a quota in words."""
    said = [f"{option} {quota[field]}" for option, (field, _words) in LIMITS.items() if quota[field]]
    return ", ".join(said) or "as the settings say"


def _add(options: argparse.Namespace) -> int:
    client_of(options).call("PUT", _path(options.name))
    print(f"tenant {options.name} is there; give somebody a role in it: godwit user --help")
    return 0


def _remove(options: argparse.Namespace) -> int:
    client_of(options).call("DELETE", _path(options.name))
    print(f"tenant {options.name} is gone")
    return 0


def _quota(options: argparse.Namespace) -> int:
    client: PlatformClient = client_of(options)
    changes = {
        field: getattr(options, option)
        for option, (field, _words) in LIMITS.items()
        if getattr(options, option) is not None
    }
    path = _path(options.name)
    tenant = client.call("PATCH", f"{path}/quota", changes) if changes else client.call("GET", path)
    print(f"{tenant['name']}: {limits_of(tenant['quota'])}")
    return 0
