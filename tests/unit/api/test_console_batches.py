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
from godwit.server.console.batches import Batch, Batches, Known, Stage, stream
from godwit.server.identity.batch_lines import Line, Refused

ADMIN = Principal("admin")


def lines(*ids: str) -> list[Line]:
    return [Line(at + 2, {"deviceId": each}) for at, each in enumerate(ids)]


def begun(rig, ids: list[str], known: Known = Known.LEAVE) -> Batch:
    return Batch(rig.platform, ADMIN, lines(*ids), [], known)


async def read(batch: Batch, pieces: int | None = None) -> bytes:
    """Read a batch to its end, or go away after so many pieces."""
    got = bytearray()
    answer = stream(batch)
    async for piece in answer:
        got += piece
        if pieces is not None and (pieces := pieces - 1) == 0:
            await answer.aclose()
            break
    await asyncio.get_running_loop().shutdown_default_executor()
    return bytes(got)


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
def test_what_did_not_arrive_is_taken_back(rig):
    ids = [f"tb-{each}" for each in range(8)]
    batch = begun(rig, ids)
    asyncio.run(read(batch, pieces=2))
    assert (batch.stage, batch.enrolled) == (Stage.BROKEN, 6)
    states = [str(each.state) for name in ids for each in rig.identity.issuance.of_device(DeviceId(name))]
    assert states == ["revoked"] * 6
    again = begun(rig, ids)
    asyncio.run(read(again))
    assert (again.stage, again.enrolled, again.refused) == (Stage.DONE, 8, [])


@pytest.mark.usefixtures("small")
def test_certificates_that_were_never_used_are_given_anew_where_that_is_asked(rig):
    asyncio.run(read(begun(rig, ["un-0", "un-1"])))
    (used,) = rig.identity.issuance.of_device(DeviceId("un-1"))
    rig.identity.revocation.seen(used.fingerprint)
    rig.identity.revocation.flush()
    batch = begun(rig, ["un-0", "un-1"], Known.UNUSED)
    asyncio.run(read(batch))
    assert [(each.device_id, each.code) for each in batch.refused] == [("un-1", "already-enrolled")]
    states = [str(each.state) for each in rig.identity.issuance.of_device(DeviceId("un-0"))]
    assert states == ["pending", "revoked"]


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
