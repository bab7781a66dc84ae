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
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.contract.limits import TRUSTS_MAX
from godwit.contract.notices import NewMessageKeys
from godwit.device.identity_file import (
    Asked,
    Granted,
    Held,
    Kept,
    MessageKeyNames,
    State,
    Step,
    fingerprint,
    fingerprints,
    naming,
    newer,
)
from godwit.device.keys import FileKeys, Key, KeyProvider, make_request
from godwit.runtime.files import sync_directory, write_whole

_FILE: Final = "identity.json"
_CHAINS: Final = "chains"
_MESSAGES: Final = "messages"


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
            if not self.trouble:  # else a person may still mend it
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
        known = fingerprints(self.kept.trusted) | set(self.kept.past)
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
    def take(self, granted: Granted, *, told: str = "", is_rotated: bool = False) -> Held:
        """Keep what was granted to the request that waits.

        `told`: the message keys that came with it, as a digest; `is_rotated`: they are the next ones, and in use now.
        """
        kept = self.kept
        kept.may(Step.GRANT)
        assert kept.asked is not None
        held = Held(kept.asked.key, granted.certificate, granted.chain, granted.time)
        self._write_chain(held)
        self._save(
            msgspec.structs.replace(
                naming(kept, granted.roots),
                next=held,
                asked=None,
                time=max(kept.time, granted.time),
                configuration=granted.configuration if granted.configuration is not None else kept.configuration,
                told=told or kept.told,
                platform=newer(kept.platform, granted),
                **_rotated(kept, granted.time, is_rotated=is_rotated, is_told=bool(told)),
            )
        )
        self._sweep_message_keys()
        return held

    @_in_turn
    def trust(self, roots: tuple[str, ...]) -> bool:
        """Trust the roots that the platform names, beside those before; returns whether that is news."""
        named = naming(self.kept, roots)
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
        if not kept.asked and root not in fingerprints(kept.earlier):
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
    def next_message_keys(self) -> MessageKeyNames:
        """Return the names of those that are to follow, made where there are none. They count once they are granted."""
        names = self.kept.message_keys_next
        if names is None:
            names = MessageKeyNames(self._message_keys.make(), self._message_keys.make())
            self._save(msgspec.structs.replace(self.kept, message_keys_next=names))
        return names

    @_in_turn
    def refuse_message_keys(self) -> None:
        """Note that the platform does not take those that it was told: nothing is made with them any more.

        Others are told before the next message leaves; those that were to follow are given up, too.
        """
        self._save(msgspec.structs.replace(self.kept, message_keys_next=None, told=""))
        self._sweep_message_keys()

    @_in_turn
    def know_platform(self, new: NewMessageKeys) -> None:
        """Keep the platform's."""
        self._save(msgspec.structs.replace(self.kept, platform=new))

    # ------------------------------------------------------------------ the directory

    def _read(self, device_id: DeviceId) -> Kept:
        path = self.directory / _FILE
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=Kept)
            kept.check()
        except FileNotFoundError:
            return Kept(device_id)
        except (msgspec.DecodeError, KeyError, ValueError) as error:
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
        for name in ("message_keys", "message_keys_next", "message_keys_past"):
            names: MessageKeyNames | None = getattr(kept, name)
            try:
                for each in () if names is None else msgspec.structs.astuple(names):
                    self._message_keys.open(each)
            except RejectedError as error:
                self.trouble = str(error)
                kept = msgspec.structs.replace(kept, **{name: None})
                if name == "message_keys":
                    kept = msgspec.structs.replace(kept, told="")
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
        self._sweep_message_keys()
        with contextlib.suppress(OSError):  # the next time, then: what is left over does no harm
            self._keys.keep({each.key for each in parts})
            chains = {self._chain(each) for each in parts if isinstance(each, Held)}
            for path in (self.directory / _CHAINS).glob("*"):
                if path not in chains:
                    path.unlink()
            (self.directory / f"{_FILE}.new").unlink(missing_ok=True)

    def _sweep_message_keys(self) -> None:
        kept = self.kept
        used = (kept.message_keys, kept.message_keys_next, kept.message_keys_past)
        with contextlib.suppress(OSError):
            self._message_keys.keep({key for each in used if each is not None for key in msgspec.structs.astuple(each)})


def _rotated(kept: Kept, time: int, *, is_rotated: bool, is_told: bool) -> dict[str, Any]:
    """Return what changes of the keys of messages with a grant."""
    if is_rotated:
        made = {"message_keys": kept.message_keys_next, "message_keys_past": kept.message_keys}
        return {**made, "message_keys_next": None, "message_keys_made": time}
    return {"message_keys_made": kept.message_keys_made or time} if is_told else {}


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
