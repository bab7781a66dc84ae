"""Messages signed and encrypted end to end: the device's half. See docs/messages.md.

Takes keys as they are, or as PEM; where they come from (a file, a chip, enrollment) is not its business. What a session
encrypts with is fresh in each run of the program and never kept.
"""

import os
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from godwit.contract import codes, notices
from godwit.contract.cose import DOWN, UP, Agreed, Opened, Session, Signer, about_message, is_sealed, open_message, seal
from godwit.contract.cose_keys import (
    AgreeKey,
    SigningKey,
    VerifyingKey,
    agree_public,
    key_id,
    pem_of,
    signing_key,
    verifying_key,
)
from godwit.contract.cose_keys import agree_key as private_agree_key
from godwit.contract.errors import RejectedError
from godwit.contract.notices import NewMessageKeys, Notice
from godwit.contract.topics import Channel
from godwit.device.clock import is_believable
from godwit.runtime.clock import Clock, SystemClock

NS: Final = 1_000_000_000
MESSAGES_MAX: Final = 1 << 20
"""So many messages a session encrypts: far below the 2^32 that random nonces are good for."""
PLATFORM_KEYS_MAX: Final = 4


class Sealing:
    """What a device signs and encrypts with, and whom it believes.

    `sign_key` signs what leaves; `platform_agree_key` (of the platform's grant) encrypts it: either, or both.
    `platform_sign_key` says what of the platform's messages is believed; `agree_key` opens those that are encrypted,
    `agree_key_before` those that were under way when it was made.
    `on_keys` hears of new keys of the platform, to keep them, and their `since`, for the next run.
    """

    def __init__(
        self,
        *,
        sign_key: SigningKey | str | bytes | None = None,
        platform_agree_key: str | bytes | None = None,
        agree_key: AgreeKey | str | bytes | None = None,
        agree_key_before: AgreeKey | str | bytes | None = None,
        platform_sign_key: str | bytes | None = None,
        since: int = 0,
        on_keys: Callable[[NewMessageKeys], None] | None = None,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        sign = None if sign_key is None else signing_key(sign_key)
        self._signer = None if sign is None else Signer(sign)
        self._to = None if platform_agree_key is None else agree_public(platform_agree_key)
        own = None if agree_key is None else private_agree_key(agree_key)
        self._own = [Agreed(private_agree_key(each)) for each in (own, agree_key_before) if each is not None]
        keys = {"sign_key": sign, "agree_key": own}
        self._publics = {field: pem_of(key.public_key()) for field, key in keys.items() if key is not None}
        self._believed: dict[str, VerifyingKey] = {}
        if platform_sign_key is not None:
            self._believe(platform_sign_key)
        self._since, self._on_keys, self._clock, self._random = since, on_keys, clock, random
        self._session: Session | None = None
        self._left = 0

    def publics(self) -> dict[str, str]:
        """Return our public keys, PEM, as a request for a certificate names them."""
        return dict(self._publics)

    # --- up -------------------------------------------------------------------------------------------------------

    def seal(self, device_id: str, channel: Channel, payload: bytes) -> bytes:
        """Return `payload` as it leaves: compressed before, since what is encrypted cannot be."""
        now = self._clock.now_ns()
        return seal(
            payload,
            about_message(UP, device_id, str(channel)),
            signer=self._signer,
            session=self._session_now(),
            nonce=lambda: self._random(12),
            at=now // NS if is_believable(now) else None,
        )

    def _session_now(self) -> Session | None:
        if self._to is None:
            return None
        if self._session is None or self._left <= 0:
            self._session, self._left = Session(self._to, ec.generate_private_key(ec.SECP256R1())), MESSAGES_MAX
        self._left -= 1
        return self._session

    # --- down -----------------------------------------------------------------------------------------------------

    def open(self, device_id: str, channel: Channel, payload: bytes, content_type: str | None = None) -> Opened:
        """Return what the platform sent, signed by it. Raises MalformedError or RejectedError."""
        opened = open_message(payload, about_message(DOWN, device_id, str(channel)), self, content_type)
        if not opened.signed_by:
            raise RejectedError("it is not signed by the platform", code=codes.SIGNATURE_REQUIRED)
        return opened

    def verifying(self, kid: bytes) -> tuple[str, VerifyingKey]:
        """Return the platform's key that a message names, with its id."""
        for name, key in self._believed.items():
            if name.startswith(kid.hex()):
                return name, key
        raise RejectedError("it is signed by a key that is not the platform's", code=codes.KEY_UNKNOWN)

    def content_key(self, kid: bytes, fresh: object) -> tuple[str, bytes]:
        """Return our key that a message names, and what is agreed with the platform's fresh one."""
        for own in self._own:
            if own.name.startswith(kid.hex()):
                return own.name, own.content_key(fresh)
        raise RejectedError("it is encrypted to a key that we do not have", code=codes.KEY_UNKNOWN)

    def notice(self, device_id: str, payload: bytes) -> Notice:
        """Return a notice, opened where it is sealed; new keys in it count if the platform has signed it.

        Raises MalformedError or RejectedError.
        """
        if not is_sealed(payload, None):
            return notices.decode(payload)
        notice = notices.decode(self.open(device_id, Channel.NOTICES, payload).payload)
        details = notices.details_of(notice)
        if isinstance(details, NewMessageKeys):
            self.rotate(details)
        return notice

    def rotate(self, new: NewMessageKeys) -> None:
        """Encrypt to another key from now on, and believe another signature, too. Raises RejectedError (`key-unfit`).

        What was made before the keys that we have changes nothing.
        """
        if new.since <= self._since:
            return
        to = agree_public(new.agree_key)
        self._believe(new.sign_key)
        if self._to is not None and key_id(self._to) != key_id(to):
            self._to, self._session = to, None
        self._since = new.since
        if self._on_keys is not None:
            self._on_keys(new)

    def _believe(self, pem: str | bytes) -> None:
        key = verifying_key(pem)
        self._believed[key_id(key)] = key
        while len(self._believed) > PLATFORM_KEYS_MAX:
            del self._believed[next(iter(self._believed))]
