"""`godwit config`: what is in force, and where each value came from."""

import argparse
import json
import os
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "config",
        help="print the settings in force and where each came from",
        description="Print the settings in force and where each value came from. Secrets are hidden.",
        epilog="Example: MQTT_PORT=1884 godwit config",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    from godwit.server.foreign.bridge_file import load_bridges  # noqa: PLC0415
    from godwit.server.settings import Settings, load, shown  # noqa: PLC0415 - the device's install has no server

    env_file = Path(".env")
    loaded = load(os.environ, env_file if env_file.is_file() else None, {})
    bridges = [
        {
            "name": each.name,
            "to": f"{each.host}:{each.port}",
            "rules": [f"{rule.direction} {rule.source} -> {rule.target_prefix}{rule.filter}" for rule in each.rule],
        }
        for each in load_bridges(loaded.settings.bridges)
    ]
    rows = [
        (field.upper(), shown(loaded.settings, field), loaded.sources[field]) for field in Settings.__struct_fields__
    ]
    if options.json:
        document: dict[str, object] = {name: {"value": value, "source": source} for name, value, source in rows}
        if bridges:
            document["bridges"] = bridges
        print(json.dumps(document, indent=2))
        return 0
    widths = [max(len(row[at]) for row in rows) for at in (0, 1)]
    for name, value, source in rows:
        print(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}")
    for each in bridges:
        print(f"\nbridge {each['name']} to {each['to']}", *each["rules"], sep="\n  ")
    return 0
