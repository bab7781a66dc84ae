"""Can anybody who signs what he likes make the readers of requests and certificates fail otherwise than they say?

A damaged request has a wrong signature, and is not looked into. Here the damage is signed: a hostile device signs its
own request, and a hostile customer's authority its certificates.
"""

import datetime as dt

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import TenantId
from godwit.server.identity.authorities import describe
from godwit.server.identity.model import AuthorityKind, Source
from godwit.server.identity.ocsp import answer
from godwit.server.identity.profiles import Signer, authority_certificate, common
from godwit.server.identity.requests import check_wishes, read_request
from godwit.server.identity.scep import challenge_of
from godwit.server.identity.vouching import check_voucher, describe_certificate, issuer_of, read_certificate

NOW = dt.datetime.now(dt.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ALTERNATIVE = x509.SubjectAlternativeName([x509.DNSName("pump-7"), x509.DirectoryName(common("x"))])
AUTHORITY = authority_certificate(
    common("Acme"), KEY.public_key(), common("Acme"), KEY, NOW, dt.timedelta(days=9), depth=0
)
TRUSTED = msgspec.structs.replace(describe(AUTHORITY, AuthorityKind.FACTORY), tenant=TenantId("acme"))
PIECES = (
    b"\x00",
    b"\xff",
    b"\x80",
    b"\x30\x80",
    b"\x84\xff\xff\xff\xff",
    b"\x1e\x02\x00p",
    b"\x0c\x01\xff",
    b"\x02\x01\xff",
)


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = (len(body).bit_length() + 7) // 8 or 1
    length = bytes([len(body)]) if len(body) < 128 else bytes([0x80 | size]) + len(body).to_bytes(size, "big")
    return bytes([tag]) + length + body


def signed(inner: bytes) -> bytes:
    """Return what is signed, with its signature: a request or a certificate."""
    signature = KEY.sign(inner, ec.ECDSA(hashes.SHA256()))
    return tlv(0x30, inner, ECDSA_SHA256, tlv(0x03, b"\0", signature))


def request() -> bytes:
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    made = x509.CertificateSigningRequestBuilder().subject_name(common("pump-7"))
    made = made.add_extension(ALTERNATIVE, False).add_extension(usage, True)
    made = made.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"gwc_x")
    return made.sign(KEY, hashes.SHA256()).tbs_certrequest_bytes


def certificate() -> bytes:
    made = (
        x509.CertificateBuilder()
        .subject_name(common("pump-7"))
        .issuer_name(common("Acme"))
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(ALTERNATIVE, False)
        .add_extension(x509.NameConstraints([x509.DNSName("a")], None), True)
    )
    return made.sign(KEY, hashes.SHA256()).tbs_certificate_bytes


REQUEST, CERTIFICATE = request(), certificate()
NO_TEXT = b"\x0c\x06\xff\xfe\xfd\xfc\xfb\xfa"
Damage = st.lists(
    st.tuples(
        st.integers(0, 400), st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from(PIECES)), st.booleans()
    ),
    min_size=1,
    max_size=3,
)


def _damage(data: bytearray, damage: list[tuple[int, bytes, bool]]) -> None:
    for where, piece, is_more in damage:
        at = where % len(data)
        data[at : at if is_more else at + len(piece)] = piece


def damaged(inner: bytes, damage: list[tuple[int, bytes, bool]]) -> bytes:
    """Return it with some bytes replaced, or more in it; its own length is right again."""
    body = bytearray(inner[4:] if inner[1] == 0x82 else inner[3:])
    _damage(body, damage)
    return signed(tlv(0x30, bytes(body)))


def test_a_name_that_is_no_text() -> None:
    """It is read late: after the signature was judged."""
    for read, inner, code in (
        (read_request, REQUEST, "csr-malformed"), (read_certificate, CERTIFICATE, "certificate-malformed"),
    ):  # fmt: skip
        other = inner.replace(b"\x0c\x06pump-7", NO_TEXT)
        assert other != inner
        with pytest.raises(MalformedError) as refused:
            read(signed(other))
        assert refused.value.code == code


@settings(max_examples=250, deadline=None)
@given(Damage)
def test_requests(damage: list[tuple[int, bytes, bool]]) -> None:
    try:
        read = read_request(damaged(REQUEST, damage))
        challenge_of(read)
        check_wishes(read, "pump-7", "urn:godwit:acme:pump-7")
    except (MalformedError, RejectedError):
        pass


@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=250, deadline=None)
@given(Damage)
def test_certificates(damage: list[tuple[int, bytes, bool]]) -> None:
    try:
        read = read_certificate(damaged(CERTIFICATE, damage))
        issuer_of(read, [TRUSTED])
        row = describe_certificate(read, TRUSTED, check_voucher(read, TRUSTED, NOW), Source.API, 1)
        assert 0 < int(row.serial, 16) < 1 << 160
    except (MalformedError, RejectedError):
        pass


@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=150, deadline=None)
@given(Damage)
def test_questions_about_certificates(damage: list[tuple[int, bytes, bool]]) -> None:
    signer = Signer(TRUSTED, AUTHORITY, KEY, ())
    asked = ocsp.OCSPRequestBuilder().add_certificate(AUTHORITY, AUTHORITY, hashes.SHA256()).build()
    data = bytearray(asked.public_bytes(serialization.Encoding.DER))
    _damage(data, damage)
    ocsp.load_der_ocsp_response(answer(bytes(data), [signer], lambda _authority, _serial: None, NOW))
