"""JSON web tokens (RFC 7519) signed with a device's key (ES256, RFC 7518, 3.4): a password that nobody can keep."""

import base64
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from godwit.contract.credentials import AUDIENCE
from godwit.device.keys import Key, fingerprint
from godwit.runtime.clock import NS

LIFETIME_S: Final = 3_600
_COORDINATE_BYTES: Final = 32


def make_jwt(device_id: str, key: Key, now: int, *, audience: str = AUDIENCE, lifetime_s: int = LIFETIME_S) -> str:
    """Return a token of a device, good from `now` (ns UTC) on. `kid` is the fingerprint of the key."""
    issued = now // NS
    header = {"alg": "ES256", "typ": "JWT", "kid": fingerprint(key.public_key())}
    said = {"sub": device_id, "aud": audience, "iat": issued, "exp": issued + lifetime_s}
    signed = f"{_encoded(header)}.{_encoded(said)}"
    r, s = decode_dss_signature(key.sign(signed.encode()))
    raw = r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")
    return f"{signed}.{_base64(raw)}"


def _encoded(document: dict[str, Any]) -> str:
    return _base64(msgspec.json.encode(document))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
