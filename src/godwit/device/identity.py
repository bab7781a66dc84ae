"""The identity of a device: a directory with its keys, its certificates, whom it trusts, and the last time it was told.

| state | current | next | asked | what it is |
|---|---|---|---|---|
| empty | | | | nobody yet |
| asking | | | x | a key is made and a certificate asked for |
| granted | | x | | there is one, not yet connected with |
| settled | x | | | connected at least once with the current one |
| renewing | x | | x | another one is asked for; the current one counts |
| renewed | x | x | | both count; the next connection is made with the next one |

`identity.json` is the one file that says so, written whole or not at all. What it refers to (keys, chains) is there
before it, and what it refers to no more goes after it: a power cut at any moment leaves the state before or after.
"""

import contextlib
import fcntl
import os
import ssl
import threading
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.contract.limits import TRUSTS_MAX
from godwit.contract.notices import NewMessageKeys
from godwit.device.keys import FileKeys, Key, KeyProvider, make_request
from godwit.runtime.files import sync_directory, write_whole

_FILE: Final = "identity.json"
_CHAINS: Final = "chains"
_MESSAGES: Final = "messages"
_GRANT_SLACK_NS: Final = 60_000_000_000
"""Keys that the platform made so long before a grant may not stand in it yet: a notice about them still counts."""


class State(StrEnum):
    """See the module."""

    EMPTY = "empty"
    ASKING = "asking"
    GRANTED = "granted"
    SETTLED = "settled"
    RENEWING = "renewing"
    RENEWED = "renewed"


class Step(StrEnum):
    """What happens to an identity."""

    ASK = "ask"
    GRANT = "grant"
    CONNECT = "connect"
    """A connection was made with the newest certificate."""
    DECLINE = "decline"
    """The new certificate, or the request for it, is given up; the current one stays."""


TABLE: Final[dict[State, dict[Step, State]]] = {
    State.EMPTY: {Step.ASK: State.ASKING},
    State.ASKING: {Step.ASK: State.ASKING, Step.GRANT: State.GRANTED},
    State.GRANTED: {Step.CONNECT: State.SETTLED, Step.ASK: State.ASKING},  # asked again where it ended unused
    State.SETTLED: {Step.CONNECT: State.SETTLED, Step.ASK: State.RENEWING},
    State.RENEWING: {
        Step.ASK: State.RENEWING, Step.GRANT: State.RENEWED, Step.CONNECT: State.RENEWING, Step.DECLINE: State.SETTLED,
    },
    State.RENEWED: {Step.CONNECT: State.SETTLED, Step.DECLINE: State.SETTLED},
}  # fmt: skip
_STATES: Final = {
    (False, False, False): State.EMPTY,
    (False, False, True): State.ASKING,
    (False, True, False): State.GRANTED,
    (True, False, False): State.SETTLED,
    (True, False, True): State.RENEWING,
    (True, True, False): State.RENEWED,
}


class Held(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate, the authorities above it (PEM), its key's name, and when it was granted (platform's ns UTC)."""

    key: str
    certificate: str
    chain: tuple[str, ...]
    granted: int

    @property
    def ends(self) -> int:
        """When it ends, ns UTC."""
        return nanoseconds(x509.load_pem_x509_certificate(self.certificate.encode()).not_valid_after_utc.timestamp())

    @property
    def until(self) -> str:
        """When it ends, for people."""
        return f"{x509.load_pem_x509_certificate(self.certificate.encode()).not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def pem(self) -> bytes:
        """What a TLS client shows."""
        return "".join(each.strip() + "\n" for each in (self.certificate, *self.chain)).encode()


class Asked(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate request (PKCS#10, PEM), and its key's name."""

    key: str
    request: str


class MessageKeyNames(msgspec.Struct, frozen=True):
    """Where the keys of messages are."""

    sign: str
    agree: str


class Granted(msgspec.Struct, frozen=True):
    """What a grant gives, checked: see `enrollment.read_grant`."""

    certificate: str
    chain: tuple[str, ...]
    roots: tuple[str, ...]
    time: int
    configuration: dict[str, Any] | None = None
    platform: NewMessageKeys | None = None


class Kept(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What stands in the file. `given`: roots from whoever set the device up, until the platform has named them.

    `roots`: those that it named last; `earlier`: those before, trusted until the new certificate has connected; `past`:
    fingerprints of those that it dropped, which nobody brings back by a file that was forgotten. `told`: the message
    keys, as a digest, that the platform knows of us; `platform`: those that we know of it.
    """

    device_id: str
    current: Held | None = None
    next: Held | None = None
    asked: Asked | None = None
    given: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    time: int = 0
    configuration: dict[str, Any] | None = None
    message_keys: MessageKeyNames | None = None
    told: str = ""
    platform: NewMessageKeys | None = None

    @property
    def state(self) -> State:
        """See the module."""
        return _STATES[self.current is not None, self.next is not None, self.asked is not None]

    @property
    def trusted(self) -> tuple[str, ...]:
        """All roots that are trusted now, PEM."""
        return tuple(dict.fromkeys((*self.roots, *self.given, *self.earlier)))

    def may(self, step: Step) -> None:
        """Raise RejectedError (`identity-state`) where the table has no such step."""
        if step not in TABLE[self.state]:
            raise RejectedError(f"an identity that is {self.state} cannot {step}", code="identity-state")


Method = TypeVar("Method", bound=Callable[..., Any])


def _in_turn(step: Method) -> Method:
    """Let steps of several threads follow each other."""

    @wraps(step)
    def taken(self: "Identity", *arguments: Any, **named: Any) -> Any:
        with self._turn:
            return step(self, *arguments, **named)

    return cast("Method", taken)


class Identity:
    """See the module. One process an identity; thread-safe, and methods block."""

    def __init__(self, directory: Path, device_id: DeviceId, keys: KeyProvider | None = None) -> None:
        """Open or make it. Raises RejectedError (`identity-in-use`, `identity-of-another`)."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self._turn = threading.RLock()
        self._lock = _lock(directory)
        self._keys: KeyProvider = keys or FileKeys(directory / "keys")
        self._message_keys = FileKeys(directory / _MESSAGES)
        self.trouble = ""
        """What is wrong with what was found, in a sentence."""
        try:
            self.kept = self._read(device_id)
            self._sweep()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process have it."""
        with self._turn:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    # ------------------------------------------------------------------ looks

    @property
    def state(self) -> State:
        """See the module."""
        return self.kept.state

    @property
    def newest(self) -> Held | None:
        """The certificate to connect with first."""
        return self.kept.next or self.kept.current

    def key(self, held: Held | Asked) -> Key:
        """Return the key of a certificate or request. Raises RejectedError where it is gone."""
        return self._keys.open(held.key)

    @_in_turn
    def arm(self, context: ssl.SSLContext, held: Held) -> None:
        """Let a TLS context show a certificate."""
        chain = self._chain(held)
        if not chain.is_file() or chain.read_bytes() != held.pem:
            self._write_chain(held)
        self.key(held).arm(context, chain)

    # ------------------------------------------------------------------ steps

    @_in_turn
    def pin(self, roots: tuple[str, ...]) -> None:
        """Trust these roots, as whoever sets the device up says; not those that the platform has dropped since."""
        known = _fingerprints(self.kept.trusted) | set(self.kept.past)
        new = tuple(each for each in roots if fingerprint(each) not in known)
        if new:
            self._save(msgspec.structs.replace(self.kept, given=(*self.kept.given, *new)))

    @_in_turn
    def ask(self, *, is_key_fresh: bool = True) -> Asked:
        """Return the request that waits for its answer, or make one. `is_key_fresh`: with a key of its own.

        A certificate that was granted and not used is asked for again with its own key: a claim is bound to that one.
        """
        kept = self.kept
        kept.may(Step.ASK)
        if kept.asked is not None:
            return kept.asked
        if kept.next is not None:
            name = kept.next.key
        else:
            name = self._keys.make() if is_key_fresh or kept.current is None else kept.current.key
        asked = Asked(name, make_request(kept.device_id, self._keys.open(name)))
        self._save(msgspec.structs.replace(kept, asked=asked, next=None))
        return asked

    @_in_turn
    def take(self, granted: Granted, *, told: str = "") -> Held:
        """Keep what was granted to the request that waits; `told`: the message keys that came with it, as a digest."""
        kept = self.kept
        kept.may(Step.GRANT)
        assert kept.asked is not None
        held = Held(kept.asked.key, granted.certificate, granted.chain, granted.time)
        self._write_chain(held)
        self._save(
            msgspec.structs.replace(
                _naming(kept, granted.roots),
                next=held,
                asked=None,
                time=max(kept.time, granted.time),
                configuration=granted.configuration if granted.configuration is not None else kept.configuration,
                told=told or kept.told,
                platform=_newer(kept.platform, granted),
            )
        )
        return held

    @_in_turn
    def trust(self, roots: tuple[str, ...]) -> bool:
        """Trust the roots that the platform names, beside those before; returns whether that is news."""
        named = _naming(self.kept, roots)
        is_news = named != self.kept
        if is_news:
            self._save(named)
        return is_news

    @_in_turn
    def connected(self, held: Held, root: str = "") -> None:
        """Note a connection with a certificate, to a server below the root of this fingerprint.

        With the newest one the old one is dropped, and with it the roots that the platform names no more; unless the
        server still stands below one of these.
        """
        kept = self.kept
        if held != (kept.next or kept.current):
            return
        kept.may(Step.CONNECT)
        after = msgspec.structs.replace(kept, current=held, next=None)
        if not kept.asked and root not in _fingerprints(kept.earlier):
            past = (*kept.past, *(fingerprint(each) for each in kept.earlier))
            after = msgspec.structs.replace(after, earlier=(), past=past[-TRUSTS_MAX:])
        if after != kept:
            self._save(after)
            self._sweep()

    @_in_turn
    def decline(self) -> None:
        """Give up the new certificate, or the request for one."""
        self.kept.may(Step.DECLINE)
        self._save(msgspec.structs.replace(self.kept, next=None, asked=None))
        self._sweep()

    @_in_turn
    def told_time(self, time: int) -> None:
        """Keep a time that an authenticated platform told; never an earlier one."""
        if time > self.kept.time:
            self._save(msgspec.structs.replace(self.kept, time=time))

    # ------------------------------------------------------------------ keys of messages

    @_in_turn
    def message_keys(self) -> MessageKeyNames:
        """Return the names of our keys of messages, made where there are none."""
        names = self.kept.message_keys
        if names is None:
            names = MessageKeyNames(self._message_keys.make(), self._message_keys.make())
            self._save(msgspec.structs.replace(self.kept, message_keys=names))
        return names

    def message_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return one of them. Raises RejectedError where it is gone."""
        return self._message_keys.open(name).private

    @_in_turn
    def forget_message_keys(self) -> None:
        """Give ours up: others are made when they are needed."""
        self._save(msgspec.structs.replace(self.kept, message_keys=None, told=""))
        self._sweep()

    @_in_turn
    def know_platform(self, new: NewMessageKeys) -> None:
        """Keep the platform's."""
        self._save(msgspec.structs.replace(self.kept, platform=new))

    # ------------------------------------------------------------------ the directory

    def _read(self, device_id: DeviceId) -> Kept:
        path = self.directory / _FILE
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=Kept)
            kept.state  # noqa: B018 - a file that somebody edited may be in none
        except FileNotFoundError:
            return Kept(device_id)
        except (msgspec.DecodeError, KeyError) as error:
            aside = path.with_name(f"{_FILE}.damaged")
            path.replace(aside)
            self.trouble = f"the identity in {self.directory} is damaged ({error}): set aside as {aside.name}"
            return Kept(device_id)
        if kept.device_id != device_id:
            raise RejectedError(
                f"{self.directory} holds the identity of {kept.device_id}, not of {device_id}: name another directory",
                code="identity-of-another",
            )
        return self._with_keys(kept)

    def _with_keys(self, kept: Kept) -> Kept:
        """Leave out what has no key any more."""
        for name in ("current", "next", "asked"):
            part: Held | Asked | None = getattr(kept, name)
            if part is None:
                continue
            try:
                self._keys.open(part.key)
            except RejectedError as error:
                self.trouble = str(error)
                kept = msgspec.structs.replace(kept, **{name: None})
        if kept.message_keys is not None:
            try:
                for each in msgspec.structs.astuple(kept.message_keys):
                    self._message_keys.open(each)
            except RejectedError as error:
                self.trouble = str(error)
                kept = msgspec.structs.replace(kept, message_keys=None, told="")
        return kept

    def _save(self, kept: Kept) -> None:
        write_whole(self.directory / _FILE, msgspec.json.format(msgspec.json.encode(kept)), mode=0o600)
        self.kept = kept

    def _chain(self, held: Held) -> Path:
        return self.directory / _CHAINS / f"{fingerprint(held.certificate)[:16]}.pem"

    def _write_chain(self, held: Held) -> None:
        path = self._chain(held)
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700)
            sync_directory(self.directory)
        write_whole(path, held.pem, mode=0o600)

    def _sweep(self) -> None:
        """Delete what nothing refers to any more."""
        parts = [each for each in (self.kept.current, self.kept.next, self.kept.asked) if each is not None]
        self._keys.keep({each.key for each in parts})
        names = self.kept.message_keys
        self._message_keys.keep(set() if names is None else {names.sign, names.agree})
        chains = {self._chain(each) for each in parts if isinstance(each, Held)}
        for path in (self.directory / _CHAINS).glob("*"):
            if path not in chains:
                path.unlink()
        (self.directory / f"{_FILE}.new").unlink(missing_ok=True)


def _newer(known: NewMessageKeys | None, granted: Granted) -> NewMessageKeys | None:
    """Return the platform's message keys after a grant: what it names counts."""
    new = granted.platform
    if new is None or (known is not None and (known.agree_key, known.sign_key) == (new.agree_key, new.sign_key)):
        return known
    since = max(granted.time - _GRANT_SLACK_NS, known.since + 1 if known is not None else 0)
    return msgspec.structs.replace(new, since=since)


def _naming(kept: Kept, roots: tuple[str, ...]) -> Kept:
    """Return what is kept after the platform has named its roots."""
    if not roots:
        return kept
    named = _fingerprints(roots)
    past = tuple(each for each in kept.past if each not in named)
    gone = [each for each in (*kept.roots, *kept.earlier) if fingerprint(each) not in named]
    return msgspec.structs.replace(
        kept,
        roots=roots,
        given=tuple(each for each in kept.given if fingerprint(each) not in named),
        earlier=tuple(dict.fromkeys(gone))[:TRUSTS_MAX],
        past=past,
    )


def _lock(directory: Path) -> int | None:
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(handle, 20).decode(errors="replace").strip()
        os.close(handle)
        raise RejectedError(
            f"{directory} is in use by process {holder or 'unknown'}: stop it first", code="identity-in-use"
        ) from None
    with contextlib.suppress(OSError):  # a name for the sentence above
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def fingerprint(pem: str) -> str:
    """Return the SHA-256 of a certificate's DER, lower-case hexadecimal."""
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()


def _fingerprints(pems: tuple[str, ...]) -> set[str]:
    return {fingerprint(each) for each in pems}


def nanoseconds(seconds: float) -> int:
    """Return a certificate's time (whole seconds) as ns UTC."""
    return int(seconds) * 1_000_000_000
