"""`godwit audit`: what is weak in the fleet and in the platform; for people, and for cron."""

import argparse
import json
import sys
from typing import Any, Final

from godwit.cli.platform_client import add_server_arguments, client_of
from godwit.contract.errors import GodwitError

SEVERITIES: Final = ("info", "low", "medium", "high", "critical")
NAMED_MAX: Final = 5
EXIT_FOUND: Final = 1
EXIT_UNCHECKED: Final = 3
EXAMPLES: Final = """Examples:
  godwit audit                                  what is found, the gravest first
  godwit audit --severity high                  only what is grave
  godwit audit --json --fail-at medium          for cron: exit code 1 where anything of medium or more is found
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "audit",
        help="check certificates, tokens, devices and settings for weaknesses",
        description="Check certificates, tokens, devices and settings for weaknesses, and say what to do. "
        "Exit code 1 where something of the severity --fail-at or more is found, 3 where nothing could be checked.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the API's document")
    parser.add_argument("--severity", choices=SEVERITIES, default="info", help="the least that is shown (%(default)s)")
    parser.add_argument(
        "--fail-at", choices=(*SEVERITIES, "never"), default="high", help="the least that fails (%(default)s)"
    )
    add_server_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the platform, and show what it found; a platform that does not answer is not one without findings."""
    try:
        document = client_of(options).call("GET", f"/api/v1/security/audit?severity={options.severity}")
    except GodwitError as error:
        print(f"godwit: nothing was checked: {error}", file=sys.stderr)
        return EXIT_UNCHECKED
    print(json.dumps(document, indent=2) if options.json else report(document))
    return EXIT_FOUND if is_failure(document, options.fail_at) else 0


def is_failure(document: dict[str, Any], fail_at: str) -> bool:
    """Whether anything of this severity or more was found."""
    if fail_at == "never":
        return False
    return any(document["counts"][each] for each in SEVERITIES[SEVERITIES.index(fail_at) :])


def report(document: dict[str, Any]) -> str:
    """Return what was found as text."""
    lines = []
    for each in document["findings"]:
        lines += [f"{each['severity'].upper():<9}{each['title']} ({each['count']})", f"{'':9}{each['why']}"]
        for thing in each["affected"][:NAMED_MAX]:
            said = f": {thing['detail']}" if thing["detail"] else ""
            lines.append(f"{'':11}- {thing['kind']} {thing['name']}{said}")
        if each["count"] > NAMED_MAX:
            lines.append(f"{'':11}- and {each['count'] - NAMED_MAX} more (--json names a hundred)")
        lines += [f"{'':9}What to do: {each['todo']}", ""]
    found = ", ".join(f"{number} {name}" for name, number in document["counts"].items() if number)
    passed = len(document["passed"])
    lines.append(f"{found or 'Nothing found'}; {passed} checks found nothing.")
    return "\n".join(lines)
