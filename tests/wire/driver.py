"""Drives an MQTT broker through the wire cases of eclipse-mosquitto: exact bytes in, exact bytes back.

`python tests/wire/driver.py HOST PORT [--show failed] [--only TEXT]` prints a table. A case ends in one of

- *to the letter*: every answer as expected, and at the end closed (or, where the case says so, still answering);
- *closed without DISCONNECT*: all as expected, but where MQTT 5 could have been told a reason the broker only hung up;
- *failed*: anything else.

The data is not part of the repository; its README says how it is written. It is looked for in `GODWIT_WIRE_CASES` and
beside the repository.
"""

import argparse
import json
import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
TO_THE_LETTER, SILENT, FAILED = "to the letter", "closed without DISCONNECT", "failed"
_WORD = re.compile(r"'([^']*)'|(\S+)")
_SIZES = {"s": 2, "k": 2, "m": 2, "H": 2, "i": 1, "L": 4}
_HELPER = "wire-helper"


def find_cases() -> Path | None:
    """Return the directory of the cases, None where there is none."""
    places = (
        os.environ.get("GODWIT_WIRE_CASES"),
        REPOSITORY.parent / "shared/data/mqtt-wire",
        REPOSITORY.parent.parent / "shared/data/mqtt-wire",
    )
    return next((Path(each) for each in places if each and Path(each).is_dir()), None)


class Case(NamedTuple):
    """One case: its place, how it begins, what is exchanged, how it ends."""

    file: str
    group: str
    name: str
    version: int
    connects: bool
    is_closed: bool
    messages: tuple[dict[str, Any], ...]

    @property
    def title(self) -> str:
        return f"{self.file}: {self.group.strip()}: {self.name.strip()}"


class Outcome(NamedTuple):
    """What became of a case."""

    case: Case
    result: str
    detail: str = ""


def load(directory: Path) -> list[Case]:
    """Read all cases, in the order of the files."""
    cases = []
    for path in sorted(directory.glob("*.json")):
        for group in json.loads(path.read_text()):
            if group.get("disable"):
                continue
            for test in group["tests"]:
                said = {"ver": 4, "connect": True, "expect_disconnect": True} | group | test
                cases.append(
                    Case(
                        path.stem, group["group"], test["name"], said["ver"], said["connect"],
                        said["expect_disconnect"], tuple(test["msgs"]),
                    )
                )  # fmt: skip
    return cases


def varint(value: int) -> bytes:
    """Write a variable byte integer, longer than four bytes where the case wants that."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        if not value:
            return bytes((*out, low))
        out.append(low | 0x80)


def to_bytes(payload: str) -> bytes:
    """Read the words of a payload."""
    out = bytearray()
    for match in _WORD.finditer(payload):
        text, word = match.groups()
        if text is not None:
            out += text.encode()
        elif word[0] in "rv":
            out += varint(int(word[1:]))
        elif word[0] in _SIZES:
            out += int(word[1:]).to_bytes(_SIZES[word[0]], "big")
        else:
            out += bytes.fromhex(word)
    return bytes(out)


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def connect_packet(version: int, client_id: str) -> bytes:
    """Write the plain CONNECT that comes first."""
    name = _text("MQIsdp" if version == 3 else "MQTT")
    properties = b"\x03\x21\x00\x14" if version == 5 else b""
    body = name + bytes((version, 2)) + (60).to_bytes(2, "big") + properties + _text(client_id)
    return b"\x10" + varint(len(body)) + body


class _Peer:
    """A client's socket."""

    def __init__(self, host: str, port: int, patience_s: float) -> None:
        self._socket = socket.create_connection((host, port), timeout=patience_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self, size: int) -> bytes:
        """Read `size` bytes; fewer where the broker hung up or does not say more in time."""
        data = b""
        while len(data) < size:
            try:
                piece = self._socket.recv(size - len(data))
            except TimeoutError:
                return data
            except ConnectionError:
                piece = b""
            if not piece:
                break
            data += piece
        return data

    def read_packet(self) -> bytes:
        """Read one whole packet, as far as there is one."""
        head = self.read(2)
        while len(head) >= 2 and head[-1] & 0x80:
            more = self.read(1)
            if not more:
                return head
            head += more
        size = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(head[1:]))
        return head + self.read(size)

    def is_hung_up(self) -> bool:
        try:
            return self._socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    def close(self) -> None:
        self._socket.close()


class Driver:
    """Runs cases against one broker, one after the other: some share its state."""

    def __init__(self, host: str, port: int, patience_s: float = 1.0) -> None:
        self._host, self._port, self._patience_s = host, port, patience_s

    def run(self, case: Case) -> Outcome:
        """Run one case."""
        peer = _Peer(self._host, self._port, self._patience_s)
        try:
            outcome = self._run(case, peer)
        except ConnectionError as error:
            outcome = Outcome(case, FAILED, f"the broker hung up while we wrote: {error}")
        finally:
            peer.close()
        if outcome.result != TO_THE_LETTER:
            self._clear_retained(case)
        return outcome

    def _clear_retained(self, case: Case) -> None:
        """Take away the retained messages of a case that did not come to its end: the next must not see them."""
        for message in case.messages:
            data = to_bytes(message.get("payload", "")) if message["type"] == "send" else b""
            if data[:1] and data[0] & 0xF1 == 0x31:
                topic = data[4 : 4 + int.from_bytes(data[2:4], "big")].decode(errors="replace")
                self._publish({"topic": topic, "qos": 1, "retain": True})

    def _run(self, case: Case, peer: _Peer) -> Outcome:
        if case.connects:
            peer.send(connect_packet(case.version, f"{case.group} {case.name}"[:65_000]))
            answer = peer.read_packet()
            if answer[:1] != b"\x20" or answer[3:4] != b"\0":
                return Outcome(case, FAILED, f"CONNACK was {answer.hex(' ')}")
        for at, message in enumerate(case.messages):
            kind = message["type"]
            if kind == "send":
                peer.send(to_bytes(message["payload"]))
            elif kind == "recv":
                wanted = to_bytes(message["payload"])
                got = peer.read(len(wanted))
                if got != wanted:
                    return self._differs(case, peer, at, wanted, got + peer.read_packet() if got else got)
            elif kind == "external_publish":
                self._publish(message)
            else:
                return Outcome(case, FAILED, f"the driver does not know {kind!r}")
        return self._end(case, peer)

    def _differs(self, case: Case, peer: _Peer, at: int, wanted: bytes, got: bytes) -> Outcome:
        is_last = at == len(case.messages) - 1
        if not got and is_last and wanted[:1] == b"\xe0" and case.is_closed and peer.is_hung_up():
            return Outcome(case, SILENT, f"wanted {wanted.hex(' ')}")
        return Outcome(case, FAILED, f"message {at}: wanted {wanted.hex(' ')}, got {got.hex(' ') or 'nothing'}")

    def _end(self, case: Case, peer: _Peer) -> Outcome:
        if not case.is_closed:
            peer.send(b"\xc0\x00")
            answer = peer.read(2)
            is_alive = answer == b"\xd0\x00"
            return (
                Outcome(case, TO_THE_LETTER) if is_alive else Outcome(case, FAILED, f"PINGRESP was {answer.hex(' ')}")
            )
        last = peer.read_packet()
        if not last:
            return Outcome(case, TO_THE_LETTER) if peer.is_hung_up() else Outcome(case, FAILED, "not closed")
        if case.version == 5 and last[0] == 0xE0 and peer.is_hung_up():
            return Outcome(case, TO_THE_LETTER)
        return Outcome(case, FAILED, f"instead of closing: {last.hex(' ')}")

    def _publish(self, message: dict[str, Any]) -> None:
        """Publish as another client, and wait until that is acknowledged."""
        peer = _Peer(self._host, self._port, self._patience_s)
        qos = message["qos"]
        body = _text(message["topic"]) + (b"\x00\x01" if qos else b"") + message.get("payload", "").encode()
        try:
            peer.send(connect_packet(4, _HELPER))
            peer.read(4)
            peer.send(bytes((0x30 | qos << 1 | bool(message.get("retain")),)) + varint(len(body)) + body)
            if qos:
                peer.read(4)
            if qos == 2:
                peer.send(b"\x62\x02\x00\x01")
                peer.read(4)
            peer.send(b"\xe0\x00")
        finally:
            peer.close()


def run_all(cases: list[Case], host: str, port: int) -> Iterator[Outcome]:
    """Run the cases in order."""
    driver = Driver(host, port)
    for case in cases:
        yield driver.run(case)


def table(outcomes: list[Outcome]) -> str:
    """Show results by file."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.case.file, Counter())[outcome.result] += 1
    total = Counter(outcome.result for outcome in outcomes)
    lines = [f"{'':<16}{TO_THE_LETTER:>15}{'only closed':>13}{FAILED:>8}"]
    lines += [
        f"{file:<16}{count[TO_THE_LETTER]:>15}{count[SILENT]:>13}{count[FAILED]:>8}"
        for file, count in (*counts.items(), ("all", total))
    ]
    return "\n".join(lines)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--only", default="", help="cases whose title holds this text")
    parser.add_argument("--show", action="store_true", help="print every case that is not to the letter")
    options = parser.parse_args()
    directory = find_cases()
    if directory is None:
        print("no wire cases: set GODWIT_WIRE_CASES to their directory")
        return 2
    cases = [case for case in load(directory) if options.only in case.title]
    outcomes = list(run_all(cases, options.host, options.port))
    if options.show:
        for outcome in outcomes:
            if outcome.result != TO_THE_LETTER:
                print(f"{outcome.result}: {outcome.case.title}\n    {outcome.detail}")
    print(table(outcomes))
    return 0 if all(outcome.result == TO_THE_LETTER for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
