"""`godwit device enroll`: give a device, or thousands from a CSV file, an identity: a directory of files for each.

Keys are made here and never leave this machine. What was interrupted is run again: a key is on disk before its
certificate is asked for, a key that asks again is answered the same, and a directory is there whole or not at all.
So no device gets two certificates, and none half of its files.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final, TextIO

from godwit.cli.platform_client import PlatformClient, add_server_arguments, client_of
from godwit.contract.errors import RejectedError, UnavailableError
from godwit.contract.ids import parse_device_id
from godwit.runtime.files import write_whole
from godwit.server.identity.batch_lines import Line, Refused, read_lines, report

GROUP: Final = 250
HANDS: Final = 2
JOURNAL: Final = ".keys"
REPORT: Final = "refused.csv"
EXIT_INTERRUPTED: Final = 130


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the action."""
    parser = actions.add_parser(
        "enroll",
        help="give a device its certificate, or thousands from a CSV file",
        description="Write what a device needs to connect into a directory of its name: device.crt (and its chain),\n"
        "device.key (readable by you only), ca.crt (whom to trust), config.json (where the platform is). The device\n"
        "is created unless it is there. Run it again after an interruption: what is done stays, the rest follows.\n\n"
        "A batch is a CSV file with a header: device_id, and if you like name, type, tenant, groups (a;b) and tags\n"
        "(hall=2;line=7). Lines that are refused are listed in DIR/refused.csv, with their codes.",
        epilog="Examples: godwit device enroll press-7 --out bundles\n"
        "          godwit device enroll press-7 --csr press-7.csr --out bundles\n"
        "          godwit device enroll --batch devices.csv --out bundles",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("device_id", nargs="?", metavar="ID", help="of the device")
    parser.add_argument("--batch", type=Path, metavar="FILE", help="CSV of devices, - for standard input")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)")
    parser.add_argument("--csr", type=Path, metavar="FILE", help="the device's own request: its key stays with it")
    parser.add_argument("--zip", action="store_true", help="write a zip instead of a directory")
    parser.add_argument("--tenant", metavar="NAME", help="of a device that is created")
    parser.add_argument("--type", metavar="NAME", help="of a device that is created")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_server_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run; returns the exit code."""
    if (options.device_id is None) == (options.batch is None):
        raise RejectedError("say the device's ID, or --batch FILE", code="usage")
    if options.batch is not None and options.csr is not None:
        raise RejectedError("--csr is for one device", code="usage")
    client = client_of(options)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        return _one(options, client) if options.batch is None else _many(options, client)
    except OSError as error:
        raise UnavailableError(
            f"{options.out} cannot be written to: {error.strerror or error}. What is done stays; mend it, and run it "
            "again", code="file-unwritable",
        ) from error  # fmt: skip
    except KeyboardInterrupt:
        print(f"interrupted; what {options.out} has stays, and the same command does the rest", file=sys.stderr)
        return EXIT_INTERRUPTED


def _many(options: argparse.Namespace, client: PlatformClient) -> int:
    refused: list[Refused] = []
    with _open(options.batch) as file:
        try:
            lines = list(read_lines(file, _defaults(options), refused))
        except UnicodeDecodeError as error:
            raise RejectedError(f"{options.batch} is not UTF-8: {error}", code="csv-malformed") from error
    work = Batch(client, options.out)
    left = [each for each in lines if not work.is_done(each.device_id)]
    if len(left) < len(lines):
        print(f"{len(lines) - len(left):,} devices have their files already; {len(left):,} are left")
    done = 0
    with _progress(len(left), quiet=options.quiet) as advance:
        for given, wrong in work.run(left):
            done += given
            refused += wrong
            advance(given + len(wrong))
    if options.zip:
        _pack(options.out, [each.device_id for each in lines if work.is_done(each.device_id)], f"{options.out}.zip")
    return _report(options.out, done, refused)


def _defaults(options: argparse.Namespace) -> dict[str, Any]:
    given = {"tenant": options.tenant, "deviceType": options.type}
    return {name: value for name, value in given.items() if value is not None}


def _one(options: argparse.Namespace, client: PlatformClient) -> int:
    device_id = parse_device_id(options.device_id)
    work = Batch(client, options.out)
    if work.is_done(device_id):
        raise RejectedError(
            f"{work.directory(device_id)} is there already: remove it, and revoke its certificate, to begin anew",
            code="exists",
        )
    document = {"deviceId": device_id, **_defaults(options)}
    if options.csr is not None:
        answer = client.call("POST", "/api/v1/devices/enroll", {"items": [document | {"request": _text(options.csr)}]})
        wrong = work.keep(answer, [Line(1, document)], {})
    else:
        (_, wrong), *_ = work.run([Line(1, document)])
    if wrong:
        raise RejectedError(wrong[0].detail, code=wrong[0].code)
    if options.zip:
        packed = f"{work.directory(device_id)}.zip"
        _pack(options.out, [device_id], packed)
        shutil.rmtree(work.directory(device_id))
        print(packed)
    else:
        print(work.directory(device_id))
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise RejectedError(
            f"{path}: a certificate request in PEM is expected: {error}", code="csr-malformed"
        ) from None


# --- the batch --------------------------------------------------------------------------------------------------------


def _open(path: Path) -> contextlib.AbstractContextManager[TextIO]:
    if str(path) == "-":
        return contextlib.nullcontext(sys.stdin)
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise RejectedError(f"{path} cannot be read: {error.strerror}", code="csv-malformed") from error


class Batch:
    """Makes keys, asks for certificates, writes directories; `run` any number of times on the same directory."""

    def __init__(self, client: PlatformClient, out: Path) -> None:
        self._client, self._out, self._journal = client, out, out / JOURNAL
        self._known = self._read_journal()

    def directory(self, device_id: str) -> Path:
        """Return a device's directory."""
        from godwit.server.identity.bundles import directory_of  # noqa: PLC0415

        return self._out / directory_of(device_id)

    def is_done(self, device_id: str) -> bool:
        """Whether a device has all its files."""
        return self.directory(device_id).is_dir()

    def run(self, lines: list[Line]) -> Iterator[tuple[int, list[Refused]]]:
        """Enroll; yields for each group how many were, and who was refused."""
        groups = [lines[at : at + GROUP] for at in range(0, len(lines), GROUP)]
        hands = ThreadPoolExecutor(HANDS)
        try:
            for done in as_completed([hands.submit(self._group, at, group) for at, group in enumerate(groups)]):
                yield done.result()
        finally:  # at Ctrl-C, or when something fails: what is in hand is finished, what waits is not begun
            hands.shutdown(cancel_futures=True)
        if self._journal.is_dir():  # every key stands in its device's directory now, or was refused
            shutil.rmtree(self._journal)

    def _group(self, number: int, lines: list[Line]) -> tuple[int, list[Refused]]:
        from godwit.server.identity.operators import make_key, request_pem  # noqa: PLC0415

        keys: dict[str, tuple[str, str]] = {}
        for each in lines:
            known = self._known.get(each.device_id)
            if known is None:
                request, key = make_key(each.device_id)
                known = request_pem(request), key
            keys[each.device_id] = known
        self._write_journal(number, keys)
        items = [each.document | {"request": keys[each.device_id][0]} for each in lines]
        answer = self._client.call("POST", "/api/v1/devices/enroll", {"items": items})
        wrong = self.keep(answer, lines, {device_id: key for device_id, (_, key) in keys.items()})
        return len(lines) - len(wrong), wrong

    def keep(self, answer: Any, lines: list[Line], keys: Mapping[str, str]) -> list[Refused]:
        """Write the files of those who got a certificate; returns the others."""
        from godwit.server.identity.bundles import AUTHORITY, CERTIFICATE, CONFIG, KEY, mode_of  # noqa: PLC0415

        wrong = []
        for line, item in zip(lines, answer["items"], strict=True):
            if "code" in item:
                wrong.append(Refused(line.number, line.device_id, item["code"], item["detail"]))
                continue
            files = {
                CERTIFICATE: item["certificate"] + "".join(item["chain"]),
                AUTHORITY: "".join(answer["authorities"]),
                CONFIG: json.dumps(item["config"], indent=2) + "\n",
            }
            if line.device_id in keys:
                files[KEY] = keys[line.device_id]
            draft = self._out / f".new-{self.directory(line.device_id).name}"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(mode=0o700)
            for name, text in files.items():
                handle = os.open(draft / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode_of(name))
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(handle)
            draft.rename(self.directory(line.device_id))
        return wrong

    def _write_journal(self, number: int, keys: Mapping[str, tuple[str, str]]) -> None:
        """Keep the keys of a group, before anything is asked for them."""
        fresh = {device_id: both for device_id, both in keys.items() if device_id not in self._known}
        if fresh:
            self._journal.mkdir(mode=0o700, exist_ok=True)
            free = self._journal / f"{os.getpid()}-{number}.json"
            write_whole(free, json.dumps(fresh).encode(), mode=0o600)

    def _read_journal(self) -> dict[str, tuple[str, str]]:
        known: dict[str, tuple[str, str]] = {}
        for path in sorted(self._journal.glob("*.json")):
            known |= {device_id: (request, key) for device_id, (request, key) in json.loads(path.read_text()).items()}
        return known


def _pack(out: Path, device_ids: Iterable[str], target: str) -> None:
    from godwit.server.identity.bundles import archive, directory_of  # noqa: PLC0415

    bundles = {
        each: {path.name: path.read_bytes() for path in sorted((out / directory_of(each)).iterdir())}
        for each in device_ids
    }
    write_whole(Path(target), archive(bundles), mode=0o600)


def _report(out: Path, done: int, refused: list[Refused]) -> int:
    path = out / REPORT
    if not refused:
        path.unlink(missing_ok=True)
        print(f"{done:,} devices enrolled in {out}")
        return 0
    path.write_bytes(report(refused))
    print(f"{done:,} devices enrolled in {out}; {len(refused):,} line{'s' * (len(refused) != 1)} refused, see {path}")
    return 1


@contextlib.contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; nothing elsewhere. Gives what advances it."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    with Progress(
        TextColumn("Enrolling"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn(compact=True),
        console=Console(stderr=True), disable=quiet or not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=total)
        yield lambda step: bar.advance(task, step)
