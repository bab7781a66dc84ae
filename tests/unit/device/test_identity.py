"""Does a device keep its identity, whatever happens between two bytes that it writes?"""

import itertools
import os
import shutil
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from authorities import DAY, NOW, NS, Authority, answered, enroll

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId
from godwit.contract.notices import NewMessageKeys
from godwit.device.enrollment import read_answer, read_grant, read_roots
from godwit.device.identity import Identity
from godwit.device.identity_file import TABLE, State, Step, fingerprint
from godwit.device.keys import FileKeys, Key

DEVICE = DeviceId("press-7")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "identity"


def opened(directory: Path) -> Identity:
    return Identity(directory, DEVICE)


def reopened(identity: Identity) -> Identity:
    identity.close()
    return opened(identity.directory)


# --- states -----------------------------------------------------------------------------------------------------------


def test_a_life(directory: Path, authority: Authority) -> None:
    identity = opened(directory)
    assert identity.state is State.EMPTY
    asked = identity.ask()
    assert identity.state is State.ASKING
    identity = reopened(identity)
    assert identity.ask() == asked, "the same request is asked again after a power cut"
    held = identity.take(answered(identity, authority))
    assert (identity.state, identity.newest) == (State.GRANTED, held)
    identity = reopened(identity)
    identity.connected(held)
    assert identity.state is State.SETTLED
    renewal = identity.ask()
    assert identity.state is State.RENEWING
    assert renewal.key != asked.key
    identity.connected(held)
    assert identity.state is State.RENEWING
    after = identity.take(answered(identity, authority))
    assert (identity.state, identity.newest, identity.kept.current) == (State.RENEWED, after, held)
    identity = reopened(identity)
    identity.arm(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), held)
    identity.arm(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), after)
    identity.connected(held)
    assert identity.state is State.RENEWED, "a connection with the old one settles nothing"
    identity.connected(after)
    assert (identity.state, identity.newest) == (State.SETTLED, after)
    with pytest.raises(RejectedError, match="gone"):
        identity.key(held)
    assert sorted(each.name for each in directory.rglob("*") if each.is_file()) == sorted(
        ["identity.json", "lock", f"{after.key}.key", f"{fingerprint(after.certificate)[:16]}.pem"]
    )
    identity.close()


def test_what_is_declined_leaves_the_old_one(directory: Path, authority: Authority) -> None:
    identity = opened(directory)
    enroll(identity, authority)
    held = identity.newest
    identity.ask()
    identity.decline()
    assert (identity.state, identity.newest) == (State.SETTLED, held)
    identity.ask()
    identity.take(answered(identity, authority))
    identity.decline()
    assert (identity.state, identity.newest) == (State.SETTLED, held)
    assert len(list((directory / "keys").iterdir())) == 1
    identity.close()


def test_what_ended_before_it_was_used_is_asked_for_with_its_own_key(directory: Path, authority: Authority) -> None:
    identity = opened(directory)
    held_key = identity.ask().key
    identity.take(answered(identity, authority))
    assert identity.ask().key == held_key, "a claim is bound to the key"
    identity.close()


def test_the_table_is_kept_to(directory: Path, authority: Authority) -> None:
    identity = opened(directory)
    with pytest.raises(RejectedError, match="cannot decline"):
        identity.decline()
    identity.ask()
    granted = answered(identity, authority)
    identity.take(granted)
    with pytest.raises(RejectedError) as refused:
        identity.take(granted)
    assert refused.value.code == "identity-state"
    assert set(TABLE) == set(State)
    assert {step for steps in TABLE.values() for step in steps} == set(Step)
    identity.close()


def test_nobody_else_reads_the_key(directory: Path) -> None:
    before = os.umask(0)
    try:
        identity = opened(directory)
        name = identity.ask().key
    finally:
        os.umask(before)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (directory, *directory.rglob("*"))}
    assert modes == {"identity": 0o700, "keys": 0o700, f"{name}.key": 0o600, "identity.json": 0o600, "lock": 0o600}
    assert "PRIVATE" not in (directory / "identity.json").read_text()
    identity.close()


def test_one_process_one_device(directory: Path) -> None:
    identity = opened(directory)
    with pytest.raises(RejectedError, match=f"in use by process {os.getpid()}"):
        opened(directory)
    identity.ask()
    identity.close()
    with pytest.raises(RejectedError, match="holds the identity of press-7"):
        Identity(directory, DeviceId("press-8"))
    opened(directory).close()


def test_rot_is_named_and_set_aside(directory: Path, authority: Authority) -> None:
    identity = opened(directory)
    enroll(identity, authority)
    identity.ask()
    identity.close()
    assert identity.kept.current is not None
    (directory / "keys" / f"{identity.kept.current.key}.key").write_bytes(b"-----BEGIN")
    identity = opened(directory)
    assert "cannot be read" in identity.trouble
    assert identity.state is State.ASKING
    identity.close()
    (directory / "identity.json").write_bytes(b'{"deviceId": "press-7"')
    identity = opened(directory)
    assert "set aside as identity.json.damaged" in identity.trouble
    assert (identity.state, (directory / "identity.json.damaged").is_file()) == (State.EMPTY, True)
    identity.close()


class Chip:
    """A key in a chip: it makes one, and it does not come out."""

    def __init__(self, directory: Path) -> None:
        keys = FileKeys(directory)
        self._name = keys.make()
        self._key = keys.open(self._name)
        self.armed = 0

    def make(self) -> str:
        return "slot-9"

    def open(self, name: str) -> Key:
        assert name == "slot-9"
        return self  # type: ignore[return-value]

    def keep(self, names: set[str]) -> None:
        assert names <= {"slot-9"}

    def public_key(self) -> object:
        return self._key.public_key()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def arm(self, _context: ssl.SSLContext, chain: Path) -> None:
        assert chain.read_bytes().count(b"BEGIN CERTIFICATE") == 2
        self.armed += 1


def test_a_key_may_stand_in_a_chip(tmp_path: Path, authority: Authority) -> None:
    chip = Chip(tmp_path / "chip")
    identity = Identity(tmp_path / "identity", DEVICE, chip)
    enroll(identity, authority)
    enroll(identity, authority)
    assert identity.newest is not None
    identity.arm(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), identity.newest)
    assert (chip.armed, identity.newest.key) == (1, "slot-9")
    identity.close()


# --- whom to trust ----------------------------------------------------------------------------------------------------


def test_a_new_root_is_trusted_beside_the_old_until_the_new_certificate_works(directory: Path) -> None:
    first, second = Authority("first"), Authority("second")
    identity = opened(directory)
    identity.pin((first.root,))
    identity.pin((first.root,))
    enroll(identity, first)
    assert (identity.kept.given, identity.kept.trusted) == ((), (first.root,))
    assert identity.trust((first.root, second.root)), "a notice"
    assert not identity.trust((first.root, second.root))
    identity = reopened(identity)
    assert set(identity.kept.trusted) == {first.root, second.root}
    identity.ask()
    held = identity.take(answered(identity, second, authorities=[second.root]))
    assert set(identity.kept.trusted) == {first.root, second.root}, "the new certificate has not worked yet"
    identity.connected(held, fingerprint(first.root))
    assert set(identity.kept.trusted) == {first.root, second.root}, "the server itself is still below the old root"
    identity.connected(held, fingerprint(second.root))
    assert identity.kept.trusted == (second.root,)
    identity.pin((first.root,))
    assert identity.kept.trusted == (second.root,), "a file that was forgotten brings nobody back"
    identity.trust((first.root, second.root))
    assert set(identity.kept.trusted) == {first.root, second.root}, "the platform may"
    identity.close()


def test_a_root_that_the_platform_never_names_stays_pinned(directory: Path) -> None:
    ours, company = Authority("ours"), Authority("company")
    identity = opened(directory)
    identity.pin((company.root,))
    enroll(identity, ours)
    assert set(identity.kept.trusted) == {company.root, ours.root}
    identity.ask()
    identity.connected(identity.take(answered(identity, ours, authorities=[])))
    assert set(identity.kept.trusted) == {company.root, ours.root}
    identity.close()


def test_only_roots_are_taken_for_roots(authority: Authority) -> None:
    assert read_roots([authority.root]) == (authority.root,)
    for wrong in ("", "rubbish", authority.issuing, authority.server(NOW, NOW + DAY)[0]):
        with pytest.raises(RejectedError) as refused:
            read_roots([authority.root, wrong])
        assert refused.value.code == "root-wrong"
    with pytest.raises(RejectedError, match="16 at most"):
        read_roots([authority.root] * 17)


# --- grants -----------------------------------------------------------------------------------------------------------


def test_only_what_was_asked_for_is_taken(directory: Path, authority: Authority) -> None:
    identity = opened(directory)
    asked = identity.ask()
    key = identity.key(asked).public_key()
    good = authority.grant(asked.request)
    other = FileKeys(directory.parent / "other")
    wrong = {
        "grant-malformed": (msgspec.structs.replace(good, certificate="rubbish"), key),
        "grant-wrong-key": (good, other.open(other.make()).public_key()),
        "grant-wrong-name": (
            msgspec.structs.replace(good, certificate=authority.issue(asked.request, name="press-8")), key,
        ),
        "grant-wrong-chain": (msgspec.structs.replace(good, chain=[Authority("other").issuing]), key),
        "root-wrong": (msgspec.structs.replace(good, authorities=[authority.issuing]), key),
        "claim-spent": (msgspec.structs.replace(good, code="claim-spent", message="it was used"), key),
    }  # fmt: skip
    for code, (grant, its_key) in wrong.items():
        with pytest.raises((RejectedError, MalformedError)) as refused:
            read_grant(grant, DEVICE, its_key)
        assert refused.value.code == code
    assert read_grant(good, DEVICE, key).roots == (authority.root,)
    identity.close()


def test_answers_of_http_are_read() -> None:
    told = read_answer(b'{"title": "No", "code": "claim-spent", "detail": "it was used"}', DEVICE, 403)
    assert (told.code, told.message) == ("claim-spent", "it was used")
    assert read_answer(b"<html>", DEVICE, 404).code == "http-404"
    assert read_answer(b'{"deviceId": "press-7", "certificate": "x"}', DEVICE, 200).certificate == "x"
    with pytest.raises(MalformedError):
        read_answer(b"<html>", DEVICE, 200)


# --- power cuts -------------------------------------------------------------------------------------------------------


class PowerCut(BaseException):
    """The end of everything; nobody catches it."""


class Disk:
    """Cuts the power at the n-th step of the disk, before or after it is done.

    `durable` is what a disk has for sure then: what it had at the last sync of a directory. What was written since may
    be there too, in part: `torn` keeps the files that no sync had reached empty.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, cut_at: int, *, is_after: bool) -> None:
        self.root, self._cut_at, self._is_after = root, cut_at, is_after
        self.steps = 0
        self._unsynced: set[Path] = set()
        self.durable = self._snapshot()
        for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir")):
            patch.setattr(owner, name, self._step(getattr(owner, name), name))

    def _snapshot(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def _step(self, really: Callable[..., object], name: str) -> Callable[..., object]:
        def step(*arguments: object, **named: object) -> object:
            if name == "open" and not int(arguments[1]) & os.O_CREAT:  # type: ignore[call-overload]
                return really(*arguments, **named)
            self.steps += 1
            if self.steps == self._cut_at and not self._is_after:
                raise PowerCut
            done = really(*arguments, **named)
            if name == "open":
                self._unsynced.add(Path(str(arguments[0])))
            elif name == "fsync":
                path = Path(f"/proc/self/fd/{arguments[0]}").readlink()
                self._unsynced.discard(path)
                if path.is_dir():
                    self.durable = self._snapshot()
            if self.steps == self._cut_at:
                raise PowerCut
            return done

        return step

    def restore_durable(self) -> None:
        """Leave what is there for sure."""
        for path in list(self._snapshot()):
            path.unlink()
        for path, data in self.durable.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def tear(self) -> None:
        """Leave files empty that no sync had reached."""
        for path in self._unsynced:
            if path.exists():
                path.write_bytes(b"")


@pytest.mark.parametrize("after", ["as it is", "durable", "torn"])
@pytest.mark.parametrize("is_after", [False, True])
def test_the_power_is_cut_at_every_step(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, after: str, is_after: bool
) -> None:
    made = tmp_path / "made"
    identity = opened(made)
    identity.pin((authority.root,))
    identity.ask()
    identity.close()
    for cut_at in itertools.count(1):
        directory = tmp_path / str(cut_at)
        shutil.copytree(made, directory)
        identity = opened(directory)
        (spent,) = {identity.ask().key}
        with monkeypatch.context() as patch:
            disk = Disk(directory, patch, cut_at, is_after=is_after)
            seen: list[str] = []
            keys, names, following = "", None, None
            try:
                names = identity.message_keys()
                keys = "told"
                seen.append(identity.take(answered(identity, authority), told=keys).certificate)
                assert identity.newest is not None
                identity.connected(identity.newest)
                seen.append("settled")
                identity.ask()
                identity.decline()
                identity.told_time(int((NOW + DAY).timestamp()) * NS)
                identity.know_platform(NewMessageKeys("a", "s", 5))
                keys = "?"
                identity.refuse_message_keys()
                following = identity.next_message_keys()
                identity.ask()
                seen.append(identity.take(answered(identity, authority), told="again", is_rotated=True).certificate)
                keys = "rotated"
                assert identity.newest is not None
                identity.connected(identity.newest)
                break
            except PowerCut:
                pass
        identity.close()
        {"durable": disk.restore_durable, "torn": disk.tear}.get(after, lambda: None)()
        identity = opened(directory)
        assert not identity.trouble, (cut_at, identity.trouble)
        assert authority.root in identity.kept.trusted
        kept = identity.kept.message_keys
        if names is not None and keys == "told":
            assert kept == names, "the platform may know these"
        past, waiting = identity.kept.message_keys_past, identity.kept.message_keys_next
        for each in (kept, past, waiting):
            if each is not None:
                assert {identity.message_key(name).key_size for name in (each.sign, each.agree)} == {256}
        assert (identity.kept.told == "again") == (past is not None), "those before are there as long as they may count"
        if past is not None:
            assert (past, kept, waiting) == (names, following or kept, None)
        elif following is not None:
            assert (kept, waiting) == (names, following), "what the platform may be told is not made twice"
        assert keys != "rotated" or past is not None
        assert not identity.kept.told or kept is not None
        if not seen:  # the same key asks again, or has its answer
            part = identity.kept.asked or identity.newest
            assert part is not None
            assert part.key == spent
        else:  # what was told as done is there: the newest, or the one before it, and both work
            held = {each.certificate for each in (identity.kept.current, identity.kept.next) if each is not None}
            assert held & set(seen)
        if len(seen) > 1:
            assert identity.kept.current is not None
        finish(identity, authority)
        identity.close()
    assert cut_at > 30


def finish(identity: Identity, authority: Authority) -> None:
    """Go on from wherever it is, as a device does; what it has can be shown."""
    for each in (identity.kept.current, identity.kept.next):
        if each is not None:
            identity.arm(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), each)
    if identity.state in (State.GRANTED, State.RENEWED):
        assert identity.newest is not None
        identity.connected(identity.newest)
    enroll(identity, authority)
    assert identity.state is State.SETTLED


@pytest.mark.parametrize("damage", ["torn", "certificate", "no text", "state"])
def test_what_is_damaged_is_set_aside_and_its_keys_stay(tmp_path: Path, authority: Authority, damage: str) -> None:
    identity = opened(tmp_path)
    identity.pin((authority.root,))
    enroll(identity, authority)
    identity.message_keys()
    identity.close()
    path = tmp_path / "identity.json"
    whole = path.read_text()
    broken = {
        "torn": whole[:-20],
        "certificate": whole.replace("-----BEGIN CERTIFICATE-----", "-----BEGIN-----", 1),
        "no text": "\0" * len(whole),
        "state": whole.replace('"current"', '"next"'),
    }[damage]
    path.write_text(broken)
    before = {each for each in tmp_path.rglob("*") if each.is_file()}
    identity = opened(tmp_path)
    if damage != "state":  # granted, and not yet settled: that is a state
        assert "damaged" in identity.trouble
        assert identity.state is State.EMPTY
        assert before - {path} <= {each for each in tmp_path.rglob("*") if each.is_file()}
    identity.close()
    if damage != "state":
        path.write_text(whole)  # somebody had a copy
        identity = opened(tmp_path)
        assert identity.state is State.SETTLED
        assert not identity.trouble
        identity.close()


def test_a_disk_that_takes_nothing_away_stops_nobody(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems need room to delete: what is left over is deleted another time."""
    identity = opened(tmp_path)
    identity.pin((authority.root,))
    enroll(identity, authority)

    def full(_: Path, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", full)
        enroll(identity, authority)
    assert identity.state is State.SETTLED
    assert len(list((tmp_path / "keys").iterdir())) > 1
    identity.close()
    opened(tmp_path).close()
    assert len(list((tmp_path / "keys").iterdir())) == 1
