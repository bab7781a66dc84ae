"""The keys of a device: made on it, and never leaving it.

`FileKeys` keeps ECDSA P-256 keys in files that only their owner can read. A security chip is another provider: what we
ask of one is a signature, and that it arms TLS contexts (a TPM 2.0 or PKCS#11 provider of OpenSSL does that by itself).
"""

import ssl
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import NameOID

from godwit.contract.errors import RejectedError
from godwit.runtime.files import sync_directory, write_whole

_NAME_CHARACTERS: Final = 16
_SUFFIX: Final = ".key"

PublicKey = ec.EllipticCurvePublicKey


class Key(Protocol):
    """A private key that stays where it is."""

    def public_key(self) -> PublicKey:
        """Return its public half."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the ECDSA signature of `data` with SHA-256, as DER."""
        ...

    def arm(self, context: ssl.SSLContext, chain: Path) -> None:
        """Let a TLS context prove with this key that the certificate in the PEM file `chain` is ours."""
        ...


class KeyProvider(Protocol):
    """Where keys are. Methods may block."""

    def make(self) -> str:
        """Make a key; it is there for good when this returns its name. A chip with one key returns that one's."""
        ...

    def open(self, name: str) -> Key:
        """Return a key. Raises RejectedError (`key-missing`, `key-damaged`)."""
        ...

    def keep(self, names: set[str]) -> None:
        """Forget all other keys."""
        ...


class FileKey:
    """A key in a file."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises RejectedError (`key-missing`, `key-damaged`)."""
        self._path = path
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except FileNotFoundError:
            raise RejectedError(f"the key {path} is gone: enroll anew", code="key-missing") from None
        except (OSError, ValueError, TypeError) as error:
            raise RejectedError(f"the key {path} cannot be read: {error}", code="key-damaged") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise RejectedError(f"the key {path} is no ECDSA key", code="key-damaged")
        self._key = key

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """The key itself: to agree on others with."""
        return self._key

    def public_key(self) -> PublicKey:
        """Return its public half."""
        return self._key.public_key()

    def sign(self, data: bytes) -> bytes:
        """Return the ECDSA signature of `data` with SHA-256, as DER."""
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    def arm(self, context: ssl.SSLContext, chain: Path) -> None:
        """Let a TLS context use it with the certificate in `chain`."""
        context.load_cert_chain(chain, self._path)


class FileKeys:
    """Keys in a directory that only its owner can enter; named by the fingerprint of their public half."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self) -> str:
        """Make a key; returns its name."""
        if not self._directory.is_dir():
            self._directory.mkdir(mode=0o700, parents=True)
            sync_directory(self._directory.parent)
        key = ec.generate_private_key(ec.SECP256R1())
        name = fingerprint(key.public_key())[:_NAME_CHARACTERS]
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_whole(self._path(name), pem, mode=0o600)
        return name

    def open(self, name: str) -> FileKey:
        """Return a key. Raises RejectedError (`key-missing`, `key-damaged`)."""
        return FileKey(self._path(name))

    def keep(self, names: set[str]) -> None:
        """Delete all other keys, and drafts that a power cut left."""
        for path in self._directory.glob("*"):
            if path.suffix != _SUFFIX or path.stem not in names:
                path.unlink()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}{_SUFFIX}"


def fingerprint(key: PublicKey) -> str:
    """Return the SHA-256 of a key's SubjectPublicKeyInfo, hexadecimal (RFC 7469, 2.4)."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


class _Signing(ec.EllipticCurvePrivateKey):
    """A `Key` in the clothes in which `cryptography` takes private keys: it asks them to sign, and for nothing else."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        if isinstance(signature_algorithm.algorithm, Prehashed):
            raise NotImplementedError("the key hashes for itself")
        return self._key.sign(bytes(data))

    def public_key(self) -> PublicKey:
        return self._key.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.public_key().curve

    @property
    def key_size(self) -> int:
        return self.curve.key_size

    def exchange(self, *_: Any) -> bytes:
        raise NotImplementedError("the key only signs")

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise NotImplementedError("the key does not leave its place")

    def private_bytes(self, *_: Any) -> bytes:
        raise NotImplementedError("the key does not leave its place")

    def __copy__(self) -> "_Signing":
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> "_Signing":
        return self


def signing(key: Key) -> ec.EllipticCurvePrivateKey:
    """Return a key as one with which `cryptography` signs requests and messages."""
    return _Signing(key)


def make_request(device_id: str, key: Key) -> str:
    """Return a certificate request (PKCS#10, PEM): the CN is the device id."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(signing(key), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()
