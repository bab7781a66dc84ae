"""Who reads the requests of SCEP and signs its answers."""

from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

MESSAGE_BYTES_MAX: Final = 65_536
"""Of a request to it."""


class Registrar(msgspec.Struct, frozen=True):
    """An RSA key, with its certificate by an authority of ours."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
