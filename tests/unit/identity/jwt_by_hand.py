"""JWT made without a library (RFC 7515, 7519): good ones, and those that an attacker makes."""

import base64
import hashlib
import hmac
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def _part(data):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _signed(algorithm, claims):
    return f"{_part({'alg': algorithm, 'typ': 'JWT'})}.{_part(claims)}"


def sign(key, claims):
    begin = _signed("ES256", claims)
    r, s = decode_dss_signature(key.sign(begin.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{begin}.{_part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def unsigned(claims):
    return f"{_signed('none', claims)}."


def sign_hs256(secret, claims):
    begin = _signed("HS256", claims)
    return f"{begin}.{_part(hmac.new(secret, begin.encode(), hashlib.sha256).digest())}"
