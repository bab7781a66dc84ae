"""Passwords: argon2id with the parameters of RFC 9106 (its second choice: 64 MiB, three passes, four lanes).

What it costs is bounded: few are computed at once, so that a crowd at the sign-in page does not take the memory.
"""

import threading
from functools import cached_property
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from godwit.contract.errors import RejectedError

CHARACTERS_MIN: Final = 12
CHARACTERS_MAX: Final = 256
AT_ONCE: Final = 2
_COMMON: Final = ("password", "passwort", "123456", "qwerty", "abcdef", "letmein", "administrator", "godwit")


class Passwords:
    """Thread-safe; every method blocks for some ten milliseconds."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._room = threading.Semaphore(AT_ONCE)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash("nobody has this password")

    def hash(self, password: str) -> str:
        """Return what is kept of a password."""
        with self._room:
            return self._hasher.hash(password)

    def verify(self, kept: str | None, password: str) -> bool:
        """Whether it is the password. Takes as long where there is none to compare with (`kept` None)."""
        with self._room:
            nobodys = self._nobodys  # made at the first sign-in, whoever it is; in here, as a crowd may be the first
            try:
                return self._hasher.verify(kept or nobodys, password) and kept is not None
            except (VerificationError, InvalidHashError):
                return False

    def is_outdated(self, kept: str) -> bool:
        """Whether it was computed with other parameters than those in force now."""
        return self._hasher.check_needs_rehash(kept)


def check_password(password: str, name: str) -> str:
    """Return a password that may be used. Raises RejectedError (`weak-password`).

    Length counts; which characters it is made of does not (NIST SP 800-63B, 3.1.1).
    """
    if not CHARACTERS_MIN <= len(password) <= CHARACTERS_MAX:
        raise RejectedError(f"a password has {CHARACTERS_MIN} to {CHARACTERS_MAX} characters", code="weak-password")
    lowered = password.lower()
    for each in (*_COMMON, name.lower()):
        lowered = lowered.replace(each, "")
    if len(set(lowered)) < 4:
        raise RejectedError("this password is easily guessed; take a sentence or random letters", code="weak-password")
    return password
