"""Seals secrets at rest: AES-256-GCM under a key from a passphrase (scrypt, RFC 7914).

The passphrase comes from KEY_PASSPHRASE, from the file KEY_PASSPHRASE_FILE, or from the systemd credential
`godwit-key-passphrase`. Without any of them one is made, in a file beside the database that only its owner reads: that
keeps a copied database useless, not a copied disk.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from godwit.contract.errors import RejectedError
from godwit.runtime.files import write_whole

SYSTEMD_CREDENTIAL: Final = "godwit-key-passphrase"
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_COST: Final = 1 << 15


def passphrase_of(data_dir: Path, *, passphrase: str = "", file: str = "", credentials: str | None = None) -> bytes:
    """Return the passphrase in force. `credentials`: systemd's directory of them (CREDENTIALS_DIRECTORY).

    Raises RejectedError (`key-passphrase`) when a named file cannot be read or is empty.
    """
    if passphrase:
        return passphrase.encode()
    given = Path(file) if file else None
    if given is None and credentials and (Path(credentials) / SYSTEMD_CREDENTIAL).is_file():
        given = Path(credentials) / SYSTEMD_CREDENTIAL
    own = data_dir / "tls" / "passphrase"
    if given is None:
        if not own.exists():
            own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(own, secrets.token_urlsafe(32).encode() + b"\n", mode=0o600)
        given = own
    try:
        text = given.read_bytes().strip()
    except OSError as error:
        raise RejectedError(f"the passphrase of the keys cannot be read: {error}", code="key-passphrase") from error
    if not text:
        raise RejectedError(f"the passphrase of the keys is empty: {given}", code="key-passphrase")
    return text


class Vault:
    """Seals and opens. The key is derived once: scrypt takes 50 ms and 32 MB."""

    def __init__(self, passphrase: bytes) -> None:
        self._passphrase = passphrase
        self._keys: dict[bytes, AESGCM] = {}
        self._salt = b""

    def seal(self, secret: bytes, about: str) -> bytes:
        """Return `secret` sealed; `about` says what it is, and has to be said again when it is opened."""
        self._salt = self._salt or os.urandom(_SALT_BYTES)
        nonce = os.urandom(_NONCE_BYTES)
        return self._salt + nonce + self._key(self._salt).encrypt(nonce, secret, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Return the secret. Raises RejectedError (`key-passphrase`) when passphrase or `about` are others."""
        salt, nonce = sealed[:_SALT_BYTES], sealed[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        try:
            return self._key(salt).decrypt(nonce, sealed[_SALT_BYTES + _NONCE_BYTES :], about.encode())
        except (InvalidTag, ValueError):
            raise RejectedError(
                f"the key of {about} cannot be opened: is it the passphrase that it was sealed with? "
                "(KEY_PASSPHRASE, KEY_PASSPHRASE_FILE, systemd credential)",
                code="key-passphrase",
            ) from None

    def _key(self, salt: bytes) -> AESGCM:
        found = self._keys.get(salt)
        if found is None:
            found = self._keys[salt] = AESGCM(Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(self._passphrase))
        return found
