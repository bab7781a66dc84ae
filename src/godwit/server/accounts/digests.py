"""Secrets that are random: made here, kept only as SHA-256. (People's passwords are not random; see `passwords`.)."""

import hashlib
import secrets
from typing import Final

BYTES: Final = 32


def new_secret(prefix: str = "") -> str:
    """Return 256 random bits as text."""
    return prefix + secrets.token_urlsafe(BYTES)


def digest_of(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
