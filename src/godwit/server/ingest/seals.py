"""Messages that are signed or encrypted end to end, as they come: opened before they are decoded.

Keys of devices and of the platform are an image in memory, on the broker loop, changed by identity's news. What cannot
be opened goes to quarantine like anything that cannot be read, whole and with its reason; the audit log hears of it.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract import codes
from godwit.contract.cose import DOWN, UP, Agreed, Opened, Session, Signer, about_message, is_sealed, open_message, seal
from godwit.contract.cose_keys import AgreeKey, VerifyingKey, agree_public, verifying_key
from godwit.contract.errors import GodwitError, MalformedError, RejectedError
from godwit.contract.ids import TenantId
from godwit.contract.notices import (
    MESSAGE_KEYS,
    NewMessageKeys,
    RenewalWanted,
    encode_new_message_keys,
    encode_renewal_wanted,
)
from godwit.contract.telemetry import Telemetry
from godwit.contract.topics import Channel
from godwit.server.identity.model import DeviceKey, KeyPurpose, PlatformKey
from godwit.server.ingest.arrival import Arrival
from godwit.server.ingest.directory import Entry
from godwit.server.ingest.tracks import MESSAGE_ID_AGE_S_MAX
from godwit.server.registry.model import TenantPolicy

NS: Final = 1_000_000_000
SKEW_NS: Final = 3_600 * NS
"""A device's clock may be ahead by so much, as with its readings."""
TOLD_EVERY_NS: Final = 3_600 * NS
"""A device that uses an old key of ours is told the new one no more often."""
GUARDED: Final = frozenset((Channel.TELEMETRY, Channel.EVENTS))
"""Where a policy that wants signatures or encryption applies. A last will cannot be signed when it is said."""
REFUSALS_MAX: Final = 1_000


class RefusedMessages(msgspec.Struct):
    """Messages of a device that were refused for one reason since the log was told last."""

    tenant: str
    client_id: str
    detail: str
    count: int = 0


class _DeviceKeys:
    """A device's keys, and what was agreed with its fresh ones under each of ours."""

    __slots__ = ("_read", "agree", "agreed", "held", "is_changing", "sign", "told")

    def __init__(self) -> None:
        self.is_changing = False
        """It has a new key to sign with, and may not use it yet."""
        self.held = ""
        """Which of ours it encrypts to, as far as we know."""
        self.sign: dict[str, DeviceKey] = {}
        self.agree: dict[str, DeviceKey] = {}
        self.agreed: dict[str, Agreed] = {}
        self._read: dict[str, VerifyingKey] = {}
        self.told = 0

    def learn(self, key: DeviceKey) -> None:
        """Follow a change of a key."""
        (self.sign if key.purpose is KeyPurpose.SIGN else self.agree)[key.key_id] = key
        self.is_changing = sum(not each.retired for each in self.sign.values()) > 1

    def is_newest(self, key: DeviceKey) -> bool:
        """Whether there is no newer key to sign with."""
        return all(each.created <= key.created for each in self.sign.values() if not each.retired)

    def verifying(self, key: DeviceKey) -> VerifyingKey:
        """Return a key to verify with; it is read from PEM when it is used first."""
        found = self._read.get(key.key_id)
        if found is None:
            found = self._read[key.key_id] = verifying_key(key.public)
        return found


class _Ours:
    """Our keys for one tenant, with their private halves."""

    __slots__ = ("agree", "sign")

    def __init__(self) -> None:
        self.agree: dict[str, tuple[PlatformKey, AgreeKey | None]] = {}
        self.sign: dict[str, tuple[PlatformKey, Signer | None]] = {}
        """Without a private half: those that have ended."""

    def in_use(self, keys: Mapping[str, tuple[PlatformKey, object]]) -> PlatformKey | None:
        """Return the newest key that is not retired: there are two while one is made anew."""
        found = [key for key, _ in keys.values() if not key.retired]
        return max(found, key=lambda key: key.created, default=None)


class _Lookup:
    """What one opening asks for keys."""

    __slots__ = ("_device", "_now", "_ours", "_policy", "is_old", "is_removed", "opened_by", "signed_by")

    def __init__(self, device: _DeviceKeys, ours: _Ours, policy: TenantPolicy, now: int) -> None:
        self._device, self._ours, self._policy, self._now = device, ours, policy, now
        self.signed_by: DeviceKey | None = None
        self.opened_by: PlatformKey | None = None
        self.is_old = self.is_removed = False
        """It is encrypted to an old key of ours; signed by a key that an operator removed."""

    def verifying(self, kid: bytes) -> tuple[str, VerifyingKey]:
        """Return the device's key that a message names, with its id."""
        name = kid.hex()
        for key in self._device.sign.values():
            if key.key_id.startswith(name):
                self.is_removed = bool(key.removed)
                _check_overlap(key, self._policy, self._now)
                self.signed_by = key
                return key.key_id, self._device.verifying(key)
        raise RejectedError(f"the device has no key {name[:16]} to sign with", code=codes.KEY_UNKNOWN)

    def content_key(self, kid: bytes, fresh: object) -> tuple[str, bytes]:
        """Return our key that a message names, and what is agreed with it."""
        name = kid.hex()
        for key, private in self._ours.agree.values():
            if key.key_id.startswith(name):
                self.is_old, self.opened_by = bool(key.retired), key
                if key.key_id != self._device.held or private is None:  # who has no newer one is not to lose anything
                    _check_overlap(key, self._policy, self._now, is_over=private is None)
                assert private is not None
                agreed = self._device.agreed.get(key.key_id)
                if agreed is None:
                    agreed = self._device.agreed[key.key_id] = Agreed(private, key.key_id)
                return key.key_id, agreed.content_key(fresh)
        raise RejectedError(f"the platform has no key {name[:16]} for this tenant", code=codes.KEY_UNKNOWN)


class Seals:
    """The keys, and what is done with them."""

    def __init__(self, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._devices: dict[str, _DeviceKeys] = {}
        self._ours: dict[TenantId, _Ours] = {}
        self._random = random
        self._sessions: dict[tuple[str, str], Session] = {}
        self.refused: dict[tuple[str, str], RefusedMessages] = {}
        self.used: dict[str, str] = {}
        """Device -> its new key, that has come into use since somebody looked."""
        self.newly_held: dict[str, tuple[TenantId, str]] = {}
        """Device -> (tenant, key of ours) that it encrypts to since somebody looked."""
        self.tell: Callable[[str, bytes], None] = lambda _device_id, _payload: None
        """Tells a device something on `notices`, once the group is durable."""

    # --- keys -----------------------------------------------------------------------------------------------------

    def learn(self, key: DeviceKey | PlatformKey, private: AgreeKey | None = None) -> None:
        """Follow a change of a key; one of ours comes with its private half."""
        if isinstance(key, PlatformKey):
            ours = self._ours.setdefault(key.tenant, _Ours())
            if key.purpose is KeyPurpose.SIGN:
                ours.sign[key.key_id] = (key, None if private is None else Signer(private))
            else:
                ours.agree[key.key_id] = (key, private)
            if private is None:
                for device in self._devices.values():
                    device.agreed.pop(key.key_id, None)
            return
        if key.purpose is KeyPurpose.JWT:
            return
        self._devices.setdefault(key.device_id, _DeviceKeys()).learn(key)

    def hold(self, device_id: str, name: str) -> None:
        """Note which key of ours a device encrypts to."""
        self._devices.setdefault(device_id, _DeviceKeys()).held = name

    def forget(self, device_id: str) -> None:
        """Drop the keys of an erased device."""
        self._devices.pop(device_id, None)

    # --- up -------------------------------------------------------------------------------------------------------

    def open(self, arrival: Arrival, entry: Entry | None) -> Opened:
        """Return what is in a COSE message. Raises MalformedError or RejectedError with the reason."""
        topic, publish = arrival.topic, arrival.publish
        assert topic is not None
        policy = entry.policy if entry is not None else TenantPolicy()
        device = self._devices.get(topic.device_id)
        if device is None:
            device = _DeviceKeys()
            if entry is not None:  # it has no keys of its own, and what is agreed with it is worth keeping
                self._devices[topic.device_id] = device
        ours = self._ours.get(policy.tenant) or _Ours()
        lookup = _Lookup(device, ours, policy, arrival.received)
        about = about_message(UP, topic.device_id, str(topic.channel))
        try:
            opened = open_message(publish.payload, about, lookup, publish.properties.content_type)
            _check_made(opened, lookup.signed_by)
            if entry is not None and entry.is_guarded:
                _check_protection(entry, topic.channel, opened)
        except (MalformedError, RejectedError) as error:
            self.refuse(arrival, entry, error)
            if entry is not None and error.code in (codes.KEY_REMOVED, codes.KEY_RETIRED):
                self._tell_keys(device, lookup, entry, arrival.received)
            raise
        arrival.sealed = opened
        if entry is not None:
            entry.sealed = opened
            self._note_use(device, lookup, entry)
            if lookup.is_old:
                self._tell_keys(device, lookup, entry, arrival.received)
        return opened

    def _note_use(self, device: _DeviceKeys, lookup: _Lookup, entry: Entry) -> None:
        """Note which keys a message that counts was made with: those before them may go."""
        signed_by, opened_by = lookup.signed_by, lookup.opened_by
        if device.is_changing and signed_by is not None and device.is_newest(signed_by):
            self.used[entry.device_id] = signed_by.key_id
        if opened_by is not None and opened_by.key_id != device.held:
            ours = self._ours[opened_by.tenant].agree
            before = ours.get(device.held)
            if before is None or before[0].created < opened_by.created:  # not what comes late
                device.held = opened_by.key_id
                self.newly_held[entry.device_id] = opened_by.tenant, opened_by.key_id

    def _tell_keys(self, device: _DeviceKeys, lookup: _Lookup, entry: Entry, now: int) -> None:
        """Tell a device that uses a key which is not in use any more; not more often than it can follow."""
        if now - device.told <= TOLD_EVERY_NS:
            return
        device.told = now
        if lookup.is_removed:
            self.tell(entry.device_id, encode_renewal_wanted(RenewalWanted(MESSAGE_KEYS)))
        if lookup.is_old:
            self.announce(entry.device_id, entry.policy, now)

    def admit_plain(self, arrival: Arrival, entry: Entry) -> None:
        """Let a plain message in. Raises RejectedError where the policy wants it signed or encrypted."""
        assert arrival.topic is not None
        try:
            _check_protection(entry, arrival.topic.channel, Opened(b""))
        except RejectedError as error:
            self.refuse(arrival, entry, error)
            raise
        if arrival.topic.channel is Channel.TELEMETRY:
            entry.sealed = None

    def content(self, arrival: Arrival, entry: Entry | None) -> tuple[bytes, str | None]:
        """Return (payload, content type) of a message that is no telemetry, opened where it is sealed."""
        publish = arrival.publish
        payload, content_type = publish.payload, publish.properties.content_type
        if payload[:1] != b"{" and is_sealed(payload, content_type):
            opened = self.open(arrival, entry)
            return opened.payload, opened.content_type
        if entry is not None and entry.is_guarded:
            self.admit_plain(arrival, entry)
        return payload, content_type

    def refuse(self, arrival: Arrival, entry: Entry | None, error: GodwitError) -> None:
        """Note a refusal for the audit log, which is told now and then: a flood of them is one line."""
        assert arrival.topic is not None
        key = (str(arrival.topic.device_id), error.code)
        known = self.refused.get(key)
        if known is None:
            if len(self.refused) >= REFUSALS_MAX:
                return
            tenant = entry.tenant if entry is not None else ""
            known = self.refused[key] = RefusedMessages(tenant, arrival.peer.client_id, str(error))
        known.count += 1

    def identify(self, arrival: Arrival, message: Telemetry, entry: Entry) -> None:
        """Give a message that has neither number nor id an id of its own.

        Raises RejectedError (`message-replayed`) where an id cannot tell it from a replay.
        """
        opened = arrival.sealed
        assert opened is not None
        if (message.seq is not None and message.epoch is not None) or not message.samples:
            return
        self.check_window(arrival, entry)
        message.message_id = message.message_id or opened.mark

    def check_window(self, arrival: Arrival, entry: Entry) -> None:
        """Raise RejectedError (`message-replayed`) unless it was made in the window in which ids are remembered."""
        opened = arrival.sealed
        assert opened is not None
        window = min(entry.policy.replay_window_s, MESSAGE_ID_AGE_S_MAX) * NS
        oldest = entry.ids.oldest * NS if entry.ids is not None else 0
        if opened.made is None:
            why = "it has no number, and does not say when it was made"
        elif abs(arrival.received - opened.made) > window:
            why = f"it has no number, and was made {_span(arrival.received - opened.made)} ago"
        elif opened.made < oldest:
            why = "it has no number, and was made before all that is remembered of this device"
        else:
            return
        raise self._replayed(arrival, entry, why)

    def check_repetition(self, arrival: Arrival, entry: Entry) -> None:
        """Raise RejectedError (`message-replayed`) for what brings nothing new and is too old for a redelivery."""
        opened = arrival.sealed
        assert opened is not None
        if opened.made is not None and arrival.received - opened.made > entry.policy.replay_window_s * NS:
            why = f"all of it was here before, and it was made {_span(arrival.received - opened.made)} ago"
            raise self._replayed(arrival, entry, why)

    def _replayed(self, arrival: Arrival, entry: Entry, why: str) -> RejectedError:
        error = RejectedError(why, code=codes.MESSAGE_REPLAYED)
        self.refuse(arrival, entry, error)
        return error

    # --- down -----------------------------------------------------------------------------------------------------

    def seal_for_device(self, device_id: str, tenant: TenantId, channel: Channel, payload: bytes, *, now: int) -> bytes:
        """Return `payload` signed by the platform, and encrypted where the device has a key to agree with.

        Raises RejectedError (`key-unknown`) where we have no key to sign with.
        """
        ours = self._ours.get(tenant) or _Ours()
        key = ours.in_use(ours.sign)
        signer = None if key is None else ours.sign[key.key_id][1]
        if signer is None:
            raise RejectedError(f"tenant {tenant!r} has no key to sign with", code=codes.KEY_UNKNOWN)
        about = about_message(DOWN, device_id, str(channel))
        return seal(
            payload, about, signer=signer, session=self._session(device_id), nonce=lambda: self._random(12),
            at=now // NS,
        )  # fmt: skip

    def _session(self, device_id: str) -> Session | None:
        device = self._devices.get(device_id)
        in_use = [] if device is None else [key for key in device.agree.values() if not key.retired]
        key = max(in_use, key=lambda each: each.created, default=None)
        if key is None:
            return None
        found = self._sessions.get((device_id, key.key_id))
        if found is None:
            if len(self._sessions) >= REFUSALS_MAX:
                self._sessions.clear()
            fresh = ec.generate_private_key(ec.SECP256R1())
            found = self._sessions[device_id, key.key_id] = Session(agree_public(key.public), fresh)
        return found

    def announce(self, device_id: str, policy: TenantPolicy, now: int) -> None:
        """Tell a device our keys in use, signed by each of ours that it may know."""
        ours = self._ours.get(policy.tenant) or _Ours()
        agree, sign = ours.in_use(ours.agree), ours.in_use(ours.sign)
        if agree is None or sign is None:
            return
        said = encode_new_message_keys(NewMessageKeys(agree.public, sign.public, max(agree.created, sign.created)))
        about = about_message(DOWN, device_id, str(Channel.NOTICES))
        for _, signer in ours.sign.values():
            if signer is not None:
                self.tell(device_id, seal(said, about, signer=signer, nonce=lambda: b"", at=now // NS))


def _check_overlap(key: DeviceKey | PlatformKey, policy: TenantPolicy, now: int, *, is_over: bool = False) -> None:
    if key.removed:
        raise RejectedError(f"key {key.key_id[:16]} was removed by an operator", code=codes.KEY_REMOVED)
    if is_over or (key.retired and now > key.retired + policy.key_overlap_s * NS):
        raise RejectedError(f"key {key.key_id[:16]} is retired", code=codes.KEY_RETIRED)


def _check_made(opened: Opened, key: DeviceKey | None) -> None:
    if key is not None and key.retired and opened.made is not None and opened.made > key.retired + SKEW_NS:
        raise RejectedError(f"it was signed after its key {key.key_id[:16]} was retired", code=codes.KEY_RETIRED)


def _check_protection(entry: Entry, channel: Channel, opened: Opened) -> None:
    if channel not in GUARDED:
        return
    wanted = entry.protection
    if wanted.wants_signature and not opened.signed_by:
        raise RejectedError(f"messages of this device have to be {wanted}: it is not signed",
                            code=codes.SIGNATURE_REQUIRED)  # fmt: skip
    if wanted.wants_encryption and not opened.encrypted_to:
        raise RejectedError(f"messages of this device have to be {wanted}: it is not encrypted",
                            code=codes.ENCRYPTION_REQUIRED)  # fmt: skip


def _span(ns: int) -> str:
    return f"{ns / NS / 3_600:.1f} h"
