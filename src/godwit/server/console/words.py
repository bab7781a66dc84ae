"""Numbers, sizes, spans and payloads in words that people read at a glance."""

import json
from typing import Final

from godwit.contract.payloads import legible

_UNITS: Final = {"Cel": "°C", "%RH": "% RH", "/": "", "lx": "lx", "m/s2": "m/s²", "m3": "m³", "m2": "m²", "count": ""}
"""SenML codes (RFC 8428, 12.1) that are written differently for people."""

_KINDS: Final = ("event", "type", "eventType", "kind")
_NOT_TOLD: Final = frozenset({*_KINDS, "deviceId", "eventId", "timestamp", "severity"})

LINES_MAX: Final = 4_096


def count(number: float) -> str:
    """Return an integer with thin groups: 12,345."""
    return f"{round(number):,}"


def plural(number: int, noun: str) -> str:
    """Return a number of things: 1 key, 3 keys."""
    return f"{count(number)} {noun}{'s' * (number != 1)}"


def short(number: int) -> str:
    """Return an integer in little room: 950, 1.2k, 34k."""
    if number < 1_000:
        return str(number)
    return f"{number / 1_000:.1f}k" if number < 9_950 else f"{number / 1_000:.0f}k"


def rate(per_s: float) -> str:
    """Return a rate with as many decimals as matter."""
    if per_s >= 100:
        return f"{per_s:,.0f}"
    return f"{per_s:.1f}" if per_s >= 0.05 or per_s == 0 else f"{per_s:.2f}"


def size(number: float) -> str:
    """Return bytes in binary units: 3.4 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: 3 d 4 h."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def about(seconds: float) -> str:
    """Return a length of time at a glance: 6 d, 2 h 40 min, 9 s, under 1 s."""
    if seconds < 1:
        return "under 1 s"
    number, unit_of, *rest = span(seconds).split()
    return f"{number} {unit_of}" if int(number) > 2 else " ".join((number, unit_of, *rest))


def duration(nanoseconds: float) -> str:
    """Return a length of time with as many digits as matter: 12 ms, 3.2 s, 2 h 5 min."""
    size = abs(nanoseconds)
    if size < 1e6:
        return f"{size / 1e3:.0f} µs"
    if size < 0.9995e9:
        return f"{size / 1e6:.0f} ms"
    if size < 59.95e9:
        return f"{size / 1e9:.1f} s"
    return span(round(size / 1e9))


def unit(code: str) -> str:
    """Return a unit as people write it."""
    return _UNITS.get(code, code)


def value(of: float | str) -> str:
    """Return a reading's value: up to six significant digits, whole integers, yes or no."""
    if isinstance(of, bool):
        return "yes" if of else "no"
    if isinstance(of, float):
        return f"{of:.6g}"
    return str(of)


def payload(raw: bytes) -> str:
    """Return up to 4 KiB of a payload: JSON and CBOR indented, other text as it is, anything else as a hex dump."""
    told = legible(raw)
    if told is not None:
        return json.dumps(json.loads(told), indent=2, ensure_ascii=False)[:LINES_MAX]
    cut = raw[:LINES_MAX]
    try:
        shown = cut.decode()
    except UnicodeDecodeError:
        return hex_dump(cut)
    if any(ord(each) < 32 and each not in "\t\r\n" for each in shown):
        return hex_dump(cut)
    try:
        return json.dumps(json.loads(shown), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return shown


def hex_dump(raw: bytes) -> str:
    """Return offset, bytes and characters, 16 to a line."""
    lines = []
    for at in range(0, len(raw), 16):
        row = raw[at : at + 16]
        letters = "".join(chr(each) if 32 <= each < 127 else "." for each in row)
        lines.append(f"{at:04x}  {row.hex(' '):<47}  {letters}")
    return "\n".join(lines)


def event(raw: bytes) -> tuple[str, str, str]:
    """Return what kind of event a device reported, what it says about it, and how grave it calls it."""
    try:
        told = json.loads(legible(raw) or raw)
    except (ValueError, RecursionError):
        return "event", f"{len(raw)} bytes", ""
    if not isinstance(told, dict):
        return "event", str(told)[:300], ""
    kind = next((str(told[name]) for name in _KINDS if name in told), "event")
    detail = told.get("message") or told.get("detail")
    if detail is None:
        left = {name: each for name, each in told.items() if name not in _NOT_TOLD}
        about = left.pop("details", None)
        left |= about if isinstance(about, dict) else {"details": about} if about is not None else {}
        detail = ", ".join(f"{name} {each}" for name, each in left.items())
    return kind[:40], str(detail)[:300], str(told.get("severity", "")).lower()
