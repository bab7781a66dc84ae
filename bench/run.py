"""`make bench`: run the benchmarks, print them as tables, write them to bench-results/ as JSON.

make bench                               everything, about twenty minutes
make bench BENCH="--quick"               everything, small
make bench BENCH="ingest latency"        some of it
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOMS = ("start", "store", "ingest", "latency", "device", "broker", "access", "issue", "messages", "doors")
RESULTS = Path("bench-results")


def rows_of(found: object) -> list[Mapping[str, object]]:
    """Return `found` as rows of a table: a list of mappings, or one."""
    if isinstance(found, Mapping):
        return [found]
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, Sequence) else []


def shown(value: object) -> str:
    """Return a cell."""
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return " ".join(shown(each) for each in value)
    return "" if value is None else str(value)


def show(console: Console, title: str, found: object) -> None:
    """Print tables: one for every set of columns that occurs; a mapping of tables in its parts."""
    parts = (
        {key: part for key, part in found.items() if isinstance(part, (dict, list))} if isinstance(found, dict) else {}
    )
    plain = {key: value for key, value in found.items() if key not in parts} if isinstance(found, dict) else found
    groups: dict[tuple[str, ...], list[Mapping[str, object]]] = {}
    for row in rows_of(plain):
        if row:
            groups.setdefault(tuple(row), []).append(row)
    for columns, rows in groups.items():
        table = Table(title=title, title_justify="left")
        if len(rows) == 1:
            table.add_column("figure")
            table.add_column("value", justify="right")
            for key, value in rows[0].items():
                table.add_row(key, shown(value))
        else:
            for column in columns:
                table.add_column(column, justify="left" if column in {"target", "station", "case"} else "right")
            for row in rows:
                table.add_row(*(shown(row[column]) for column in columns))
        console.print(table)
    for key, part in parts.items():
        if isinstance(part, list) and not rows_of(part):
            console.print(f"{title} {key}: {shown(part)}")
        else:
            show(console, f"{title}: {key}", part)


def _incomplete(found: object) -> list[Mapping[str, object]]:
    """Return the rows in which something is missing that should have arrived."""
    tables = list(found.values()) if isinstance(found, Mapping) else [found]
    return [row for table in tables for row in rows_of(table) if row.get("missing")]


def machine() -> dict[str, object]:
    """Return what the figures were measured on."""
    model = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), "")
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _rooms(directory: Path, *, quick: bool, messages: int) -> dict[str, Callable[[], object]]:
    # imported when run: one room's trouble is not another's
    def store() -> object:
        from bench import store as room  # noqa: PLC0415

        return room.run(quick=quick)

    def ingest() -> object:
        from bench import ingest as room  # noqa: PLC0415

        return room.run(directory, quick=quick, messages=messages)

    def latency() -> object:
        from bench import latency as room  # noqa: PLC0415

        return room.run(directory, quick=quick)

    def start() -> object:
        from bench import start as room  # noqa: PLC0415

        return room.run(directory, quick=quick)

    def device() -> object:
        from bench import device as room  # noqa: PLC0415
        from bench import spool  # noqa: PLC0415

        return {"spool": spool.run(directory, quick=quick), **room.run(directory, quick=quick)}

    def broker() -> object:
        from bench import broker as room  # noqa: PLC0415

        return room.run(directory, quick=quick)

    def access() -> object:
        from bench import access as room  # noqa: PLC0415

        return room.run(quick=quick)

    def issue() -> object:
        from bench import issue as room  # noqa: PLC0415

        return room.run(directory, quick=quick)

    def doors() -> object:
        from bench import doors as room  # noqa: PLC0415

        return room.run(directory, quick=quick)

    def sealed() -> object:
        from bench import messages as room  # noqa: PLC0415

        return room.run(directory, quick=quick)

    rooms = {"access": access, "start": start, "store": store, "ingest": ingest, "latency": latency}
    return rooms | {"device": device, "broker": broker, "issue": issue, "messages": sealed, "doors": doors}


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", metavar="room", help=f"of {', '.join(ROOMS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small loads: does it work at all?")
    parser.add_argument("--messages", type=int, default=2_000_000, help="of the memory test (default 2,000,000)")
    options = parser.parse_args()
    if unknown := set(options.rooms) - set(ROOMS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    console = Console(width=None if os.isatty(1) else 160)
    directory = Path(tempfile.mkdtemp(prefix="godwit-bench-"))
    begun = datetime.now(UTC)
    found: dict[str, object] = {"at": begun.isoformat(), "quick": options.quick, "machine": machine()}
    failed: list[str] = []
    try:
        for name, room in _rooms(directory, quick=options.quick, messages=options.messages).items():
            if options.rooms and name not in options.rooms:
                continue
            begin = time.perf_counter()
            try:
                found[name] = room()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the others are measured all the same
                failed.append(f"{name}: {error}")
                console.print(f"{name} failed: {error}\n")
                continue
            show(console, name, found[name])
            failed += [f"{name}: {row}" for row in _incomplete(found[name])]
            console.print(f"{name} took {time.perf_counter() - begin:.0f} s\n")
            write(found, begun)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    console.print(f"written to {RESULTS}/latest.json")
    if failed:
        raise SystemExit("not measured: " + "; ".join(failed))


def write(found: Mapping[str, object], begun: datetime) -> None:
    """Write what is known so far, after each room: the next may take long, or end it all."""
    RESULTS.mkdir(exist_ok=True)
    for path in (RESULTS / f"{begun:%Y%m%dT%H%M%SZ}.json", RESULTS / "latest.json"):
        path.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
