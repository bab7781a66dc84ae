"""The encoder: a process of its own that makes documents of columns, so that the broker keeps the interpreter.

`python -m godwit.server.api.encoder` reads jobs from its standard input and writes pieces to its standard output, until
the input ends: it goes when the platform goes. It runs at low priority. Started when it is first wanted.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np

from godwit.contract.errors import UnavailableError
from godwit.server.api.encodings import encode
from godwit.server.api.tables import Coded, Table

PROCESSES: Final = 1
PIECE_BYTES: Final = 262_144
_HEAD: Final = 8
_NICE: Final = 10


class Column(msgspec.Struct, array_like=True):
    """A column on its way: bytes of an array of `dtype`, with `names` if it is coded; or a list."""

    name: str
    dtype: str = ""
    data: bytes = b""
    names: list[str] | None = None
    listed: list[Any] | None = None


class Job(msgspec.Struct, array_like=True):
    """A table to be encoded."""

    media_type: str
    about: dict[str, Any]
    columns: list[Column]


_decoder: Final = msgspec.msgpack.Decoder(Job)


def job_of(table: Table, media_type: str, about: dict[str, Any]) -> bytes:
    """Return a table as bytes."""
    columns = []
    for name, column in table.columns.items():
        if isinstance(column, Coded):
            columns.append(Column(name, "i4", column.codes.astype("i4").tobytes(), column.names))
        elif isinstance(column, np.ndarray):
            columns.append(Column(name, column.dtype.str, np.ascontiguousarray(column).tobytes()))
        else:
            columns.append(Column(name, listed=column))
    return msgspec.msgpack.encode(Job(media_type, about, columns))


def table_of(job: Job) -> Table:
    """Return the table again."""
    columns: dict[str, Any] = {}
    for each in job.columns:
        if each.listed is not None:
            columns[each.name] = each.listed
            continue
        array = np.frombuffer(each.data, each.dtype)
        columns[each.name] = array if each.names is None else Coded(array, each.names)
    return Table(columns)


class _Process:
    """One encoder process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "godwit.server.api.encoder"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603

    def encode(self, job: bytes) -> Iterator[bytes]:
        """Yield the pieces of a job. Raises UnavailableError when the process ends over it."""
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        try:
            _write(sink, job)
            while piece := _read(source):
                yield piece
        except (OSError, EOFError) as error:
            self.end()
            raise UnavailableError("the encoder ended amid an export", code="encoder-failed") from error

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class Encoders:
    """Some encoder processes; who finds them busy waits."""

    def __init__(self, count: int = PROCESSES) -> None:
        self._idle: list[_Process] = []
        self._may_encode = threading.Semaphore(count)

    def encode(self, table: Table, media_type: str, about: dict[str, Any]) -> Iterator[bytes]:
        """Yield the document in pieces. Raises UnavailableError."""
        with self._may_encode:
            process = self._idle.pop() if self._idle else _Process()
            is_done = False
            try:
                yield from process.encode(job_of(table, media_type, about))
                is_done = True
            finally:
                if is_done:
                    self._idle.append(process)
                else:
                    process.end()  # nobody wants the rest, or there is none

    def close(self) -> None:
        """End the processes that are idle; the others end with the platform."""
        while self._idle:
            self._idle.pop().end()


def _write(sink: BinaryIO | Any, piece: bytes) -> None:
    sink.write(len(piece).to_bytes(_HEAD, "big"))
    sink.write(piece)
    sink.flush()


def _read(source: BinaryIO | Any) -> bytes:
    size = int.from_bytes(_exactly(source, _HEAD), "big")
    return _exactly(source, size) if size else b""


def _exactly(source: BinaryIO | Any, size: int) -> bytes:
    data: bytes = source.read(size)
    if len(data) < size:
        raise EOFError
    return data


def gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join pieces to larger ones: each costs the platform a change of threads."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


def main() -> None:
    """Encode jobs until there are no more."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            job = _decoder.decode(_read(source))
        except EOFError:
            return
        for piece in gathered(encode(table_of(job), job.media_type, job.about)):
            _write(sink, piece)
        _write(sink, b"")


if __name__ == "__main__":
    main()
