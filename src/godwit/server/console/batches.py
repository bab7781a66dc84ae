"""Batches in the console: a CSV comes in, and an archive of bundles goes out as it is made, group by group.

Nothing is kept: keys are made, packed and forgotten. So an archive that did not arrive whole is worth nothing, and is
taken back: what was issued for it is revoked. The same file sent again goes on, and leaves out who has a certificate.
"""

import threading
from asyncio import get_running_loop, to_thread
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from time import monotonic
from typing import Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId, TenantId, TypeName
from godwit.contract.times import format_time
from godwit.server.accounts.principal import Principal
from godwit.server.identity.archive import files_of
from godwit.server.identity.batch_lines import Line, Refused, report
from godwit.server.identity.bundles import Archive
from godwit.server.identity.model import Certificate, CertificateState
from godwit.server.identity.operators import Enrolled, Wanted
from godwit.server.platform import Platform
from godwit.server.registry.access import home
from godwit.server.registry.model import DEFAULT_TYPE, Device

GROUP: Final = 250
KEPT_MAX: Final = 200
"""Of so many people the last batch is remembered."""
KEPT_LINES: Final = 5
"""So many lines that came to nothing are remembered of it."""


class Stage(StrEnum):
    """Where a batch is."""

    RUNNING = "running"
    DONE = "done"
    BROKEN = "broken"


class Known(StrEnum):
    """What becomes of lines whose device has a certificate that counts."""

    LEAVE = "leave"
    UNUSED = "unused"
    """Where it was never connected with, it is revoked, and another one issued."""


class Batch:
    """One run. `step` and `take_back` block, and may be called from any thread."""

    def __init__(
        self, platform: Platform, who: Principal, lines: Sequence[Line], refused: Sequence[Refused], known: Known
    ) -> None:
        self._platform, self._who, self._lines, self._known = platform, who, lines, known
        self._archive, self._lock = Archive(), threading.Lock()
        self._issued: list[str] = []
        self._is_packed = False
        self.refused, self._forgotten = list(refused), 0
        """Lines that came to nothing: all while it runs, a few once it is over."""
        self.stage, self.at, self.total, self.enrolled = Stage.RUNNING, 0, len(lines), 0
        self.began = monotonic()

    @property
    def wrong(self) -> int:
        """How many lines came to nothing."""
        return len(self.refused) + self._forgotten

    @property
    def left_s(self) -> float | None:
        """How long it will take yet; None while nobody can say."""
        return (monotonic() - self.began) / self.at * (self.total - self.at) if self.at else None

    def step(self) -> bytes | None:
        """Enroll the next group, and return what the archive grew by; None: it is whole, and was taken to its end."""
        with self._lock:
            if self.stage is not Stage.RUNNING:
                return None
            if self._is_packed:
                self._end(Stage.DONE)
                return None
            if self.at >= self.total:
                if self.refused:
                    self._archive.add("", {"refused.csv": report(self.refused)})
                self._is_packed = True
                return self._archive.close()
            group = self._lines[self.at : self.at + GROUP]
            self._enroll(self._admitted(group))
            self.at += len(group)
            return self._archive.take()

    def _end(self, stage: Stage) -> list[str]:
        """Be over, and keep no more than is shown of it; returns what was issued."""
        issued, self.stage, self._lines, self._issued = self._issued, stage, (), []
        self._forgotten, self.refused = self.wrong, sorted(self.refused)[:KEPT_LINES]
        self._forgotten -= len(self.refused)
        return issued

    def _admitted(self, group: Sequence[Line]) -> list[Line]:
        """Return those lines whose devices get a certificate."""
        found = self._platform.identity.certificates.counting(self._who, [each.device_id for each in group])
        held: dict[str, list[Certificate]] = {}
        for each in found:
            held.setdefault(each.device_id, []).append(each)
        unused = [
            each.fingerprint
            for certificates in held.values()
            if self._known is Known.UNUSED and _is_unused(certificates)
            for each in certificates
        ]
        if unused:
            self._platform.identity.revocation.revoke_unused(unused, "superseded", self._who.name, self._who.address)
        left_out = {
            name: max(each.not_after for each in certificates)
            for name, certificates in held.items()
            if self._known is Known.LEAVE or not _is_unused(certificates)
        }
        for line in group:
            if line.device_id in left_out:
                until = format_time(left_out[line.device_id])[:10]
                said = f"it has a certificate until {until}: left out"
                self.refused.append(Refused(line.number, line.device_id, "already-enrolled", said))
        return [line for line in group if line.device_id not in left_out]

    def _enroll(self, lines: Sequence[Line]) -> None:
        if not lines:
            return
        results = self._platform.identity.operators.enroll_all(self._who, [_wanted(each, self._who) for each in lines])
        for line, each in zip(lines, results, strict=True):
            if each.refusal is None:
                self._pack(each)
            else:
                self.refused.append(Refused(line.number, line.device_id, each.refusal.code, str(each.refusal)))

    def _pack(self, done: Enrolled) -> None:
        assert done.certificate is not None
        self._archive.add(done.certificate.device_id, files_of(self._platform.settings, self._platform.identity, done))
        self._issued.append(done.certificate.fingerprint)
        self.enrolled += 1

    def take_back(self) -> None:
        """Revoke what was issued for an archive that did not arrive: nobody has its keys."""
        with self._lock:
            if self.stage is Stage.RUNNING:
                issued, revoke = self._end(Stage.BROKEN), self._platform.identity.revocation.revoke_unused
                revoke(issued, "cessationOfOperation", self._who.name, self._who.address)


def _is_unused(certificates: Sequence[Certificate]) -> bool:
    return all(each.state is CertificateState.PENDING for each in certificates)


class Batches:
    """The last batch of each person. Only one at a time runs for one."""

    def __init__(self) -> None:
        self._last: dict[str, Batch] = {}

    def last(self, who: Principal) -> Batch | None:
        """Return somebody's last batch."""
        return self._last.get(who.name)

    def forget(self, who: Principal) -> None:
        """Forget somebody's last batch, unless it runs."""
        if (last := self._last.get(who.name)) is not None and last.stage is not Stage.RUNNING:
            del self._last[who.name]

    def begin(self, who: Principal, batch: Batch) -> None:
        """Take up a batch. Raises RejectedError (`batch-running`)."""
        last = self._last.get(who.name)
        if last is not None and last.stage is Stage.RUNNING:
            raise RejectedError("a batch of yours is under way: wait until it is over", code="batch-running")
        self._last.pop(who.name, None)
        self._last[who.name] = batch
        for name in [each for each, one in self._last.items() if one.stage is not Stage.RUNNING][:-KEPT_MAX]:
            del self._last[name]


class Download(StreamingResponse):
    """The archive of a batch as an answer. What does not go out to its end is taken back, however early that is."""

    def __init__(self, batch: Batch, first: bytes) -> None:
        headers = {"content-disposition": 'attachment; filename="bundles.zip"', "cache-control": "no-store"}
        super().__init__(_pieces(batch, first), 200, headers, "application/zip")
        self._batch = batch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer (ASGI)."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._batch.stage is Stage.RUNNING:  # whoever asked is gone, or something failed: no time to wait here
                get_running_loop().run_in_executor(None, self._batch.take_back)


async def _pieces(batch: Batch, first: bytes) -> AsyncIterator[bytes]:
    yield first
    while (piece := await to_thread(batch.step)) is not None:
        yield piece


def _wanted(line: Line, who: Principal) -> Wanted:
    said = line.document
    device = Device(
        DeviceId(line.device_id), TenantId(said.get("tenant") or home(who)),
        TypeName(said.get("deviceType") or DEFAULT_TYPE), said.get("name", "")[:256], tags=said.get("tags", {}),
    )  # fmt: skip
    return Wanted(device, None, tuple(said.get("groups", ())))


def first_group(batch: Batch) -> bytes:
    """Return the beginning of the archive. Raises GodwitError for what stops all of it, before anything is answered."""
    first = None
    try:
        first = batch.step()
        return first or b""
    finally:
        if first is None:
            batch.take_back()
