"""`godwit rule`: where new devices land."""

import argparse
import json
from typing import Any, Final
from urllib.parse import quote, urlencode

from godwit.cli.landing import add_landing_arguments, landing_from
from godwit.cli.platform_client import add_server_arguments, client_of
from godwit.cli.table import table

SOURCES: Final = ("claim", "factory", "est", "scep", "grant", "api", "just-in-time", "operator", "batch")
EXAMPLES: Final = """Examples:
  godwit rule put pumps --ids 'pump-*' --group pumps --tag hall:2 --configuration pumps.json
  godwit rule list
  godwit rule delete pumps"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "rule",
        help="say where new devices land: type, groups, tags, first configuration",
        description="Rules are tried in the order of their position, then name; the first whose --ids and --source "
        "match a new device counts. What a claim or an authority says itself wins over the rule.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="action", required=True)
    putting = actions.add_parser(
        "put",
        help="make or change a rule",
        description="Make or change a rule. Example: godwit rule put pumps --ids 'pump-*' --group pumps",
    )
    putting.add_argument("name", metavar="NAME")
    putting.add_argument("--ids", default="*", metavar="PATTERN", help="of device ids: * and ? (default *)")
    putting.add_argument("--source", action="append", default=[], choices=SOURCES, help="(default any); again for more")
    putting.add_argument("--position", type=int, default=0, metavar="N", help="lower is tried first (default 0)")
    putting.add_argument("--tenant", metavar="NAME", help="(default: your own)")
    add_landing_arguments(putting)
    add_server_arguments(putting)
    putting.set_defaults(run=put)
    listing = actions.add_parser("list", help="list rules", description="List rules. Example: godwit rule list")
    listing.add_argument("--json", action="store_true", help="print the API's document")
    add_server_arguments(listing)
    listing.set_defaults(run=show)
    deleting = actions.add_parser(
        "delete",
        help="remove a rule",
        description="Remove a rule; devices that landed by it stay where they are. Example: godwit rule delete pumps",
    )
    deleting.add_argument("name", metavar="NAME")
    deleting.add_argument("--tenant", metavar="NAME", help="(default: your own)")
    add_server_arguments(deleting)
    deleting.set_defaults(run=delete)


def put(options: argparse.Namespace) -> int:
    """Make or change a rule; returns the exit code."""
    body = {
        "ids": options.ids, "sources": options.source, "position": options.position, "landing": landing_from(options)
    }  # fmt: skip
    made = client_of(options).call("PUT", _address(options), body)
    print(f"rule {made['name']} of {made['tenant']}: {made['ids']} lands {_lands(made['landing'])}")
    return 0


def show(options: argparse.Namespace) -> int:
    """List rules; returns the exit code."""
    document = client_of(options).call("GET", "/api/v1/enrollment-rules")
    if options.json:
        print(json.dumps(document, indent=2))
        return 0
    rows = [
        (each["position"], each["name"], each["tenant"], each["ids"], each["sources"] or "any", _lands(each["landing"]))
        for each in document["items"]
    ]
    print(table(("position", "name", "tenant", "ids", "sources", "lands"), rows) if rows else "No rules.")
    return 0


def delete(options: argparse.Namespace) -> int:
    """Remove a rule; returns the exit code."""
    client_of(options).call("DELETE", _address(options))
    print(f"rule {options.name} is gone")
    return 0


def _address(options: argparse.Namespace) -> str:
    query = f"?{urlencode({'tenant': options.tenant})}" if options.tenant else ""
    return f"/api/v1/enrollment-rules/{quote(options.name, safe='')}{query}"


def _lands(landing: dict[str, Any]) -> str:
    said = [f"type {landing['deviceType']}"] if landing["deviceType"] else []
    said += [f"group {each}" for each in landing["groups"]]
    said += [f"tag {key}:{value}" for key, value in landing["tags"].items()]
    fields = len(landing["configuration"])
    said += [f"configuration of {fields} field{'s' * (fields != 1)}"] if fields else []
    return ", ".join(said) or "without more"
