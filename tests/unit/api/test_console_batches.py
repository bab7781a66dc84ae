"""Batches of the console: streamed, taken back when nobody has them, gone on with by sending the same file again."""

import asyncio
import csv
import io
import zipfile

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.console import batch_parts, batches
from godwit.server.console.batches import Batch, Batches, Download, Known, Stage, first_group
from godwit.server.console.pages.certificates import LINES_MAX, _read
from godwit.server.identity.batch_lines import Line, Refused, report

ADMIN = Principal("admin")


def lines(*ids: str) -> list[Line]:
    return [Line(at + 2, {"deviceId": each}) for at, each in enumerate(ids)]


def begun(rig, ids: list[str], known: Known = Known.LEAVE) -> Batch:
    return Batch(rig.platform, ADMIN, lines(*ids), [], known)


async def read(batch: Batch, pieces: int | None = None, first: bytes = b"") -> bytes:
    """Read a batch to its end, or go away while so many pieces have come."""
    got, came, gone = bytearray(), 0, asyncio.Event()

    async def send(message) -> None:
        nonlocal came
        came += bool(message.get("body"))
        if came == pieces:
            gone.set()
            await asyncio.Event().wait()
        got.extend(message.get("body", b""))

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    if pieces == 0:
        gone.set()
    await Download(batch, first)({"type": "http"}, receive, send)
    await asyncio.get_running_loop().shutdown_default_executor()
    return bytes(got)


def states_of(rig, ids: list[str]) -> list[str]:
    return [str(each.state) for name in ids for each in rig.identity.issuance.of_device(DeviceId(name))]


def refused(archive: zipfile.ZipFile) -> dict[str, str]:
    return {row["device_id"]: row["code"] for row in csv.DictReader(io.StringIO(archive.read("refused.csv").decode()))}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(batches, "GROUP", 3)


@pytest.mark.usefixtures("small")
def test_an_archive_comes_piece_by_piece_and_is_whole(rig):
    ids = [f"cb-{each}" for each in range(7)]
    batch = begun(rig, ids)
    assert batch.left_s is None
    archive = zipfile.ZipFile(io.BytesIO(asyncio.run(read(batch))))
    assert archive.testzip() is None
    assert {each.partition("/")[0] for each in archive.namelist()} == set(ids)
    key = serialization.load_pem_private_key(archive.read("cb-6/device.key"), None)
    assert key.public_key() == x509.load_pem_x509_certificate(archive.read("cb-6/device.crt")).public_key()
    assert archive.getinfo("cb-6/device.key").external_attr >> 16 == 0o600
    assert (batch.stage, batch.at, batch.enrolled, batch.left_s) == (Stage.DONE, 7, 7, 0.0)

    # the same file again, and one device more: the others are left out, with a word about each
    again = begun(rig, [*ids, "cb-7"])
    archive = zipfile.ZipFile(io.BytesIO(asyncio.run(read(again))))
    assert {each.partition("/")[0] for each in archive.namelist()} == {"cb-7", "refused.csv"}
    assert refused(archive) == dict.fromkeys(ids, "already-enrolled")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("pieces", "issued"), [(0, 3), (1, 3), (2, 6), (4, 8)], ids=["at once", "first", "middle", "last"]
)
def test_what_did_not_arrive_is_taken_back(rig, pieces, issued):
    """Also what was issued before anything was sent, and an archive of which only the end is missing."""
    ids = [f"tb-{pieces}-{each}" for each in range(8)]
    batch = begun(rig, ids)
    asyncio.run(read(batch, pieces, first_group(batch)))
    assert (batch.stage, batch.enrolled) == (Stage.BROKEN, issued)
    assert states_of(rig, ids) == ["revoked"] * issued
    again = begun(rig, ids)
    asyncio.run(read(again))
    assert (again.stage, again.enrolled, again.refused) == (Stage.DONE, 8, [])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("at", [0, 3])
def test_a_batch_that_fails_for_whatever_reason_keeps_nobody_from_the_next_one(rig, monkeypatch, at):
    ids = [f"fb-{at}-{each}" for each in range(8)]
    batch, enroll = begun(rig, ids), Batch._enroll

    def failing(self, group):
        enroll(self, group)
        if self.at >= at:
            raise ZeroDivisionError

    monkeypatch.setattr(Batch, "_enroll", failing)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(read(batch, first=first_group(batch)))
    assert batch.stage is Stage.BROKEN
    assert set(states_of(rig, ids)) == {"revoked"}


@pytest.mark.usefixtures("small")
def test_of_a_batch_that_is_over_little_is_kept(rig):
    batch = Batch(rig.platform, ADMIN, lines("kept-1"), [Refused(at, "?", "x", "y") for at in range(20)], Known.LEAVE)
    asyncio.run(read(batch))
    assert (batch.wrong, len(batch.refused), list(batch._lines), batch._issued) == (20, 5, [], [])
    assert "and 15 more" in batch_parts.progress(batch)


def test_what_was_refused_is_no_formula():
    told = report([Refused(2, '=HYPERLINK("https://x")', "invalid-device-id", "-1")]).decode()
    assert told.splitlines()[1] == """2,"'=HYPERLINK(""https://x"")",invalid-device-id,'-1"""


def test_a_file_of_too_many_lines_is_not_read():
    for end in ("\n", "\r"):
        with pytest.raises(RejectedError) as refused:
            _read("device_id\n" + f"x{end}" * (LINES_MAX + 1))
        assert refused.value.code == "too-many-devices"
    assert [each.device_id for each in _read('device_id,name\r\na-1,"two\nlines"\r\na-2,\r\n')[0]] == ["a-1", "a-2"]


@pytest.mark.usefixtures("small")
def test_certificates_that_were_never_used_are_given_anew_where_that_is_asked(rig):
    asyncio.run(read(begun(rig, ["un-0", "un-1"])))
    (used,) = rig.identity.issuance.of_device(DeviceId("un-1"))
    rig.identity.revocation.seen(used.fingerprint)
    rig.identity.revocation.flush()
    batch = begun(rig, ["un-0", "un-1"], Known.UNUSED)
    asyncio.run(read(batch))
    assert [(each.device_id, each.code) for each in batch.refused] == [("un-1", "already-enrolled")]
    assert states_of(rig, ["un-0"]) == ["pending", "revoked"]


def test_one_batch_of_a_person_at_a_time(rig):
    known = Batches()
    first = begun(rig, ["one-0"])
    known.begin(ADMIN, first)
    with pytest.raises(RejectedError) as running:
        known.begin(ADMIN, begun(rig, ["one-1"]))
    assert running.value.code == "batch-running"
    known.forget(ADMIN)
    assert known.last(ADMIN) is first
    first.take_back()
    known.begin(ADMIN, begun(rig, ["one-1"]))


def test_wrong_lines_are_shown_as_what_they_are():
    wrong = [Refused(9, "<b>", "invalid-device-id", "no <i>id"), Refused(3, "pump", "duplicate-device", "twice")]
    page = batch_parts.wrong_lines(wrong, 4, 'device_id\n"</textarea><script>', "leave")
    assert page.index("named twice") < page.index("no device id")
    assert "Enroll the other 4" in page
    assert "<b>" not in page.partition("<tbody>")[2].partition("</tbody>")[0].replace("&lt;b&gt;", "")
    assert "</textarea><script>" not in page
    assert "Enroll the other" not in batch_parts.wrong_lines(wrong, 0, "", "leave")
