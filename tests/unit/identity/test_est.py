"""Are EST's requests read as RFC 7030 writes them, and is everything else refused with its code?"""

from base64 import b64encode, encodebytes

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from godwit.contract.errors import MalformedError, RejectedError
from godwit.server.identity.est import WISHES, read_est_request
from godwit.server.identity.requests import common_name


def request(name: str = "pump-1") -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


DER = request().public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "body",
    [
        b64encode(DER), encodebytes(DER), encodebytes(DER).replace(b"\n", b"\r\n"), b" " + b64encode(DER) + b"\n\n",
        request().public_bytes(Encoding.PEM),
    ],
)  # fmt: skip
def test_base64_may_be_in_lines(body: bytes) -> None:
    assert common_name(read_est_request(body).subject) == "pump-1"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "csr-malformed"), (b"####", "csr-malformed"), (DER, "csr-malformed"),
        (b64encode(DER[:-9]), "csr-malformed"),
        (b"A" * 32_769, "csr-too-large"), (b64encode(b"\0" * 20_000), "csr-too-large"),
        (b64encode(DER.replace(b"\x02\x01\x00", b"\x02\x01\x31", 1)), "csr-malformed"),  # version 49
        (b64encode(DER[:-1] + bytes([DER[-1] ^ 1])), "csr-signature"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(body: bytes, code: str) -> None:
    with pytest.raises((MalformedError, RejectedError)) as refused:
        read_est_request(body)
    assert refused.value.code == code


@given(st.binary(max_size=400) | st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)))
def test_nothing_else_comes_out(damage: bytes | tuple[int, int]) -> None:
    body = damage if isinstance(damage, bytes) else DER[: damage[0]] + bytes([damage[1]]) + DER[damage[0] + 1 :]
    try:
        read_est_request(b64encode(body))
    except (MalformedError, RejectedError):
        return
    assert body == DER


def test_wishes_name_the_key_and_the_signature() -> None:
    key, signature = core.SequenceOf.load(WISHES, strict=True, spec=core.Any)
    assert core.Sequence.load(key.dump(), strict=True)[0].dotted == "1.2.840.10045.2.1"
    assert core.ObjectIdentifier.load(signature.dump(), strict=True).dotted == "1.2.840.10045.4.3.2"
