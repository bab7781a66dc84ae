"""The keys with which a device that has an identity signs and encrypts messages, and what it knows of the platform's.

They are made beside the TLS key, told to the platform in the request for a certificate, and the grant answers with the
platform's: nothing leaves before both know each other's keys. After a while others follow, in the same way: made and on
disk first, told with a request, and used once the platform says that it has taken them; what was under way to those
before can be opened still. See `sealing` and docs/messages.md.
"""

from collections.abc import Callable
from enum import StrEnum
from hashlib import sha256
from typing import Final

from godwit.contract.cose_keys import key_id, pem_of, verifying_key
from godwit.contract.errors import RejectedError
from godwit.contract.notices import NewMessageKeys
from godwit.device.identity import Identity
from godwit.device.identity_file import MessageKeyNames
from godwit.device.sealing import Sealing
from godwit.runtime.clock import NS, Clock


class Protection(StrEnum):
    """What messages are. An encrypted one that nobody signed proves nothing, so that `encrypt` signs, too."""

    SIGN = "sign"
    ENCRYPT = "encrypt"


PERIOD_DAYS: Final = 60.0
"""As often as a certificate of 90 days is renewed: then it costs no request of its own."""
EARLY: Final = 0.5
"""With a renewal that is made anyway, they are made anew after so much of their time."""
SPREAD: Final = 0.25
"""So much of their time is what the moments of a fleet are spread over."""
DAY_S: Final = 86_400.0


class MessageKeys:
    """`wanted`: how to protect messages with keys that are made and kept here, or the application's own keys.

    `period_days`: how long keys are used that are made here; 0: for as long as the platform takes them. Methods block.
    """

    def __init__(
        self,
        identity: Identity,
        wanted: Protection | Sealing,
        clock: Clock,
        report: Callable[[str, str], None],
        period_days: float = PERIOD_DAYS,
    ) -> None:
        self._identity, self._wanted, self._clock, self._report = identity, wanted, clock, report
        self._period_s = period_days * DAY_S
        self._made_of: tuple[object, ...] | None = None
        self._is_renewal_wanted = False
        """Others are to follow now, whatever their age."""
        self.sealing: Sealing | None = wanted if isinstance(wanted, Sealing) else None
        """What to seal with; None until the platform has given its keys."""

    def publics(self, now_s: float | None = None) -> dict[str, str]:
        """Return the fields of a request: our public keys, PEM. Makes them where there are none.

        `now_s`: it is for a request that is made now: where it is time, others follow with it.
        """
        if isinstance(self._wanted, Sealing):
            return self._wanted.publics()
        names = self._identity.kept.message_keys_next if now_s is not None else None
        if names is None and now_s is not None and self._is_time(now_s):
            try:
                names = self._identity.next_message_keys()
            except OSError as error:  # a certificate is worth more than new keys: it is asked for all the same
                self._report("identity", f"{self._identity.directory} cannot be written: {error}")
        return self._publics_of(names or self._identity.message_keys())

    def _publics_of(self, names: MessageKeyNames) -> dict[str, str]:
        keys = {"sign_key": names.sign, "agree_key": names.agree}
        return {field: pem_of(self._identity.message_key(name).public_key()) for field, name in keys.items()}

    def _is_time(self, now_s: float) -> bool:
        kept = self._identity.kept
        if self._is_renewal_wanted and kept.message_keys is not None:
            return True
        return bool(self._period_s and kept.message_keys_made) and now_s >= self._after(EARLY)

    def _after(self, share: float) -> float:
        return self._identity.kept.message_keys_made / NS + share * self._period_s

    def due_s(self, chance: float) -> float:
        """Return when others are to follow (s since 1970), each device at a moment of its own; infinite: never."""
        kept = self._identity.kept
        if isinstance(self._wanted, Sealing) or not self._period_s or not kept.message_keys_made:
            return float("inf")
        return self._after(1.0 - SPREAD * chance)

    def taken(self, told: dict[str, str], ids: tuple[str, ...]) -> tuple[str, bool]:
        """Return what an identity notes of a grant: the keys that it was told (a digest), and whether others follow.

        `told`: what the last request said; `ids`: what the platform says that it has taken. An answer may be to a
        request before the last one. A platform that does not say so has taken what it was told.
        """
        if isinstance(self._wanted, Sealing):
            return digest(told), False
        kept = self._identity.kept
        for names, is_next in ((kept.message_keys_next, True), (kept.message_keys, False)):
            if names is None:
                continue
            publics = self._publics_of(names)
            if set(ids) >= ids_of(publics) if ids else publics == told:
                self._is_renewal_wanted = self._is_renewal_wanted and not is_next
                return digest(publics), is_next
        return NOTHING_TOLD, False

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
        made_of = kept.message_keys, kept.message_keys_past, kept.platform
        if made_of == self._made_of:
            return
        platform = kept.platform
        if platform is None:
            raise RejectedError(
                "the platform gave no keys for messages: it cannot read what is signed or encrypted",
                code="message-keys-missing",
            )
        names, before = self._identity.message_keys(), kept.message_keys_past
        self.sealing = Sealing(
            sign_key=self._identity.message_key(names.sign),
            agree_key=self._identity.message_key(names.agree),
            agree_key_before=None if before is None else self._identity.message_key(before.agree),
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
            kept = self._identity.kept
            self._made_of = kept.message_keys, kept.message_keys_past, kept.platform

    def renew(self) -> None:
        """Have others follow with the next request, since the platform says so."""
        self._is_renewal_wanted = True

    def refused(self) -> None:
        """Note that the platform takes neither those in use nor those that were to follow any more: make others."""
        self.renew()
        if not isinstance(self._wanted, Sealing):
            self._identity.refuse_message_keys()


NOTHING_TOLD: Final = ""


def ids_of(publics: dict[str, str]) -> set[str]:
    """Return the ids of public keys."""
    return {key_id(verifying_key(each)) for each in publics.values()}


def digest(publics: dict[str, str]) -> str:
    """Return what an identity notes of the keys that were told."""
    if not publics:
        return NOTHING_TOLD
    return sha256("".join(f"{field}:{publics[field]}" for field in sorted(publics)).encode()).hexdigest()
