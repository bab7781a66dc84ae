"""Seals secrets at rest: AES-256-GCM under a key from a passphrase (scrypt, RFC 7914).

The passphrase comes from KEY_PASSPHRASE, from the file KEY_PASSPHRASE_FILE, or from the systemd credential
`godwit-key-passphrase`. Without any of them one is made, in a file beside the database that only its owner reads: that
keeps a copied database useless, not a copied disk.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
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


def open_vault(data_dir: Path, *, passphrase: str = "", file: str = "", credentials: str | None = None) -> "Vault":
    """Return the vault of an installation. Raises RejectedError (`key-passphrase`)."""
    is_given = passphrase or file or (credentials and (Path(credentials) / SYSTEMD_CREDENTIAL).is_file())
    is_made = not is_given and not own_file(data_dir).exists()
    text = passphrase_of(data_dir, passphrase=passphrase, file=file, credentials=credentials)
    return Vault(text, None if is_given else own_file(data_dir), is_made=is_made)


def passphrase_of(data_dir: Path, *, passphrase: str = "", file: str = "", credentials: str | None = None) -> bytes:
    """Return the passphrase in force. `credentials`: systemd's directory of them (CREDENTIALS_DIRECTORY).

    Raises RejectedError (`key-passphrase`) when a named file cannot be read or is empty.
    """
    if passphrase:
        return passphrase.encode()
    given = Path(file) if file else None
    if given is None and credentials and (Path(credentials) / SYSTEMD_CREDENTIAL).is_file():
        given = Path(credentials) / SYSTEMD_CREDENTIAL
    own = own_file(data_dir)
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


def own_file(data_dir: Path) -> Path:
    """Return where a passphrase is kept that nobody else gave."""
    return data_dir / "tls" / "passphrase"


class Vault:
    """Seals and opens. Keys are derived once: scrypt takes 50 ms and 32 MB.

    Nonces are random, and every process has a salt, so a key, of its own: a database that is restored from a backup
    repeats none. What a secret is about is authenticated with it: put into another row, it does not open.

    `own` is the file of the passphrase, where it is ours. Beside it there may be a `.next` one: a change of the
    passphrase was interrupted, and either of the two is in force. `is_made`: it was made a moment ago, since nobody
    gave one.
    """

    def __init__(self, passphrase: bytes, own: Path | None = None, *, is_made: bool = False) -> None:
        self._passphrases = [passphrase]
        self._own, self._is_made = own, is_made
        if self._next is not None and self._next.is_file():
            self._passphrases.append(self._next.read_bytes().strip())
        self._keys: dict[tuple[bytes, bytes], AESGCM] = {}
        self._salt = b""

    @property
    def _next(self) -> Path | None:
        return None if self._own is None else self._own.with_suffix(".next")

    def seal(self, secret: bytes, about: str) -> bytes:
        """Return `secret` sealed; `about` says what it is, and has to be said again when it is opened."""
        self._salt = self._salt or os.urandom(_SALT_BYTES)
        nonce = os.urandom(_NONCE_BYTES)
        of = self._passphrases[0], self._salt
        key = self._keys[of] = self._key(*of)
        return self._salt + nonce + key.encrypt(nonce, secret, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Return the secret. Raises RejectedError (`key-passphrase`) when passphrase or `about` are others."""
        for passphrase in self._passphrases:
            secret = self._opened(passphrase, sealed, about)
            if secret is not None:
                return secret
        raise RejectedError(
            f"the key of {about} cannot be opened: is it the passphrase that it was sealed with? "
            "(KEY_PASSPHRASE, KEY_PASSPHRASE_FILE, systemd credential)",
            code="key-passphrase",
        )

    # --- another passphrase ---------------------------------------------------------------------------------------

    @contextmanager
    def changing(self, passphrase: str) -> Iterator["Vault"]:
        """Give a vault of another passphrase, to seal everything anew with; once that is done, this one uses it too.

        A file of ours follows: the new passphrase is on disk before anything is sealed with it. Both open from the
        beginning on, and the old one to the end of the process: others may have read before what they open now. After
        an error nobody knows yet which one is in force, since a commit may have failed or only its answer: `settle`.
        """
        fresh, before = Vault(passphrase.encode()), self._passphrases[0]
        if self._next is not None:
            write_whole(self._next, passphrase.encode() + b"\n", mode=0o600)
        self._passphrases = [before, *fresh._passphrases]
        yield fresh
        self._passphrases, self._salt = [*fresh._passphrases, before], fresh._salt
        if self._next is not None and self._own is not None:
            self._next.replace(self._own)

    @property
    def keeps_its_passphrase(self) -> bool:
        """Whether the passphrase is in a file of ours; else its owner has to put a new one in place."""
        return self._own is not None

    def settle(self, sealed: bytes, about: str) -> None:
        """See, by a secret, that the passphrase is right; or which is in force, after a change that was interrupted.

        So a wrong one is found out at the start, and not when a certificate is due. Raises RejectedError
        (`key-passphrase`) when none is.
        """
        first, *others = self._passphrases
        try:
            self.open(sealed, about)
        except RejectedError:
            if not self._is_made or self._own is None:
                raise
            self._own.unlink()
            raise RejectedError(
                "the keys are sealed with a passphrase, and none was given: set KEY_PASSPHRASE_FILE or KEY_PASSPHRASE, "
                f"or the systemd credential {SYSTEMD_CREDENTIAL}, or bring {self._own} back from a backup",
                code="key-passphrase",
            ) from None
        in_force = next(each for each in (first, *others) if self._opened(each, sealed, about) is not None)
        self._passphrases = [in_force]
        if self._next is None or self._own is None or not self._next.is_file():
            return
        if in_force == first:
            self._next.unlink()
        else:
            self._next.replace(self._own)

    def _opened(self, passphrase: bytes, sealed: bytes, about: str) -> bytes | None:
        salt, nonce = sealed[:_SALT_BYTES], sealed[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        key = self._key(passphrase, salt)
        try:
            secret = key.decrypt(nonce, sealed[_SALT_BYTES + _NONCE_BYTES :], about.encode())
        except (InvalidTag, ValueError):
            return None
        self._keys[passphrase, salt] = key  # only then: what somebody else gives to open fills no memory
        return secret

    def _key(self, passphrase: bytes, salt: bytes) -> AESGCM:
        found = self._keys.get((passphrase, salt))
        return found or AESGCM(Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(passphrase))
