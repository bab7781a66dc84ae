"""Options that say where a new device lands: of claims, rules and factories."""

import argparse
import json
from pathlib import Path
from typing import Any

from godwit.contract.errors import RejectedError


def add_landing_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    lands = parser.add_argument_group("where new devices land")
    lands.add_argument("--type", metavar="NAME", help="device type")
    lands.add_argument("--group", action="append", default=[], metavar="NAME", help="may be said again")
    lands.add_argument("--tag", action="append", default=[], metavar="KEY:VALUE", help="may be said again")
    lands.add_argument("--configuration", type=Path, metavar="FILE", help="JSON object: the first configuration")


def landing_from(options: argparse.Namespace) -> dict[str, Any]:
    """Return the landing of the options. Raises RejectedError (`invalid-option`)."""
    landing: dict[str, Any] = {"groups": options.group, "tags": dict(_pair(each) for each in options.tag)}
    if options.type:
        landing["deviceType"] = options.type
    if options.configuration is not None:
        landing["configuration"] = _object(options.configuration)
    return landing


def seconds(text: str) -> int:
    """Return a time such as 90s, 30m, 12h, 7d, or 0 for ever."""
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    if not number.isascii() or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: a time such as 90s, 30m, 12h or 7d; 0: it does not expire")
    return int(number) * units[unit]


def read_pem(path: Path) -> str:
    """Return a PEM file. Raises RejectedError (`invalid-option`)."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise RejectedError(f"{path} cannot be read as PEM: {error}", code="invalid-option") from error


def _pair(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not key or not colon:
        raise RejectedError(f"--tag {text!r}: KEY:VALUE, such as hall:2", code="invalid-option")
    return key, value


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RejectedError(f"{path} cannot be read as JSON: {error}", code="invalid-option") from error
    if not isinstance(found, dict):
        raise RejectedError(f"{path}: a configuration is a JSON object", code="invalid-option")
    return found
