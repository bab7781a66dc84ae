"""The keys with which a device that has an identity signs and encrypts messages, and what it knows of the platform's.

They are made beside the TLS key, told to the platform in the request for a certificate, and the grant answers with the
platform's: nothing leaves before both know each other's keys. See `sealing` and docs/messages.md.
"""

from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from typing import Final

from godwit.contract.cose_keys import pem_of
from godwit.contract.errors import RejectedError
from godwit.contract.notices import NewMessageKeys
from godwit.device.identity import Identity, MessageKeyNames
from godwit.device.sealing import Sealing
from godwit.runtime.clock import Clock


class Protection(StrEnum):
    """What messages are. An encrypted one that nobody signed proves nothing, so that `encrypt` signs, too."""

    SIGN = "sign"
    ENCRYPT = "encrypt"


class MessageKeys:
    """`wanted`: how to protect messages with keys that are made and kept here, or the application's own keys.

    Methods block.
    """

    def __init__(
        self, identity: Identity, wanted: Protection | Sealing, clock: Clock, report: Callable[[str, str], None]
    ) -> None:
        self._identity, self._wanted, self._clock, self._report = identity, wanted, clock, report
        self._made_of: tuple[MessageKeyNames | None, NewMessageKeys | None] | None = None
        self.sealing: Sealing | None = wanted if isinstance(wanted, Sealing) else None
        """What to seal with; None until the platform has given its keys."""

    def publics(self) -> dict[str, str]:
        """Return the fields of a request: our public keys, PEM. Makes them where there are none."""
        if isinstance(self._wanted, Sealing):
            return self._wanted.publics()
        names = self._identity.message_keys()
        keys = {"sign_key": names.sign, "agree_key": names.agree}
        return {field: pem_of(self._identity.message_key(name).public_key()) for field, name in keys.items()}

    @property
    def is_told(self) -> bool:
        """Whether the platform has granted something to a request with these keys."""
        return self._identity.kept.told == digest(self.publics())

    def refresh(self) -> None:
        """Take up what the identity has now. Raises RejectedError (`message-keys-missing`, `key-unfit`)."""
        kept = self._identity.kept
        if isinstance(self._wanted, Sealing):
            if kept.platform is not None:
                self._wanted.rotate(kept.platform)
            return
        made_of = kept.message_keys, kept.platform
        if made_of == self._made_of:
            return
        platform = kept.platform
        if platform is None:
            raise RejectedError(
                "the platform gave no keys for messages: it cannot read what is signed or encrypted",
                code="message-keys-missing",
            )
        names = self._identity.message_keys()
        self.sealing = Sealing(
            sign_key=self._identity.message_key(names.sign),
            agree_key=self._identity.message_key(names.agree),
            platform_agree_key=platform.agree_key if self._wanted is Protection.ENCRYPT else None,
            platform_sign_key=platform.sign_key,
            since=platform.since,
            on_keys=self._rotated,
            clock=self._clock,
        )
        self._made_of = made_of

    def _rotated(self, new: NewMessageKeys) -> None:
        """Keep what a notice told. Where the disk fails it counts all the same, and is told again another time."""
        try:
            self._identity.know_platform(new)
        except OSError as error:
            self._report("identity", f"{self._identity.directory} cannot be written: {error}")
        else:
            self._made_of = self._identity.kept.message_keys, self._identity.kept.platform

    def renew(self) -> None:
        """Make others the next time that the platform is asked: it does not take these any more."""
        if not isinstance(self._wanted, Sealing):
            self._identity.forget_message_keys()


NOTHING_TOLD: Final = ""


def digest(publics: dict[str, str]) -> str:
    """Return what an identity notes of the keys that were told."""
    if not publics:
        return NOTHING_TOLD
    return sha256("".join(f"{field}:{publics[field]}" for field in sorted(publics)).encode()).hexdigest()
