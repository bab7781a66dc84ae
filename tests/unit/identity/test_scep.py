"""Do SCEP's messages hold what RFC 8894 says, and does nothing hostile get further than its code?"""

import datetime as dt
from typing import Any

import pytest
from asn1crypto import cms, core
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from godwit.contract.errors import MalformedError, RejectedError
from godwit.server.identity import scep
from godwit.server.identity.requests import read_request

NOW = dt.datetime.now(dt.UTC)
KEY = rsa.generate_private_key(65537, 2048)
OURS = rsa.generate_private_key(65537, 2048)
ECDSA = ec.generate_private_key(ec.SECP256R1())


def certificate(name: str, key: Any) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(NOW - dt.timedelta(1))
    return builder.not_valid_after(NOW + dt.timedelta(1)).sign(key, hashes.SHA256())


CLIENT, SERVER = certificate("pump-1", KEY), certificate("registrar", OURS)
REGISTRAR = scep.Registrar(SERVER, OURS)


def csr(key: Any = KEY, challenge: str = "gwc_secret") -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pump-1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if challenge:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def envelope(content: bytes, to: x509.Certificate = SERVER, cipher: Any = algorithms.AES256) -> bytes:
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(content).set_content_encryption_algorithm(cipher)
    return builder.add_recipient(to).encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])


def message(
    inner: bytes, *, signer: x509.Certificate = CLIENT, key: Any = KEY, digest: str = "sha256", kind: str = "19",
    without: str = "", digested: bytes | None = None,
) -> bytes:  # fmt: skip
    chosen: Any = {"sha256": hashes.SHA256(), "sha512": hashes.SHA512(), "sha1": hashes.SHA1()}[digest]
    hashed = hashes.Hash(chosen)
    hashed.update(inner if digested is None else digested)
    attributes = {
        scep._CONTENT_TYPE: core.ObjectIdentifier(scep._DATA),
        scep._DIGEST: core.OctetString(hashed.finalize()),
        scep._MESSAGE_TYPE: core.PrintableString(kind),
        scep._TRANSACTION: core.PrintableString("42"),
        scep._SENDER_NONCE: core.OctetString(b"n" * 16),
    }
    raw = scep._Attributes(
        [scep._Attribute({"type": each, "values": [value]}) for each, value in attributes.items() if each != without]
    ).dump()
    own = asn1.Certificate.load(signer.public_bytes(Encoding.DER))
    info = {
        "version": "v1",
        "sid": cms.SignerIdentifier(
            "issuer_and_serial_number",
            cms.IssuerAndSerialNumber({"issuer": own.issuer, "serial_number": own.serial_number}),
        ),
        "digest_algorithm": {"algorithm": digest},
        "signed_attrs": cms.CMSAttributes.load(raw),
        "signature_algorithm": {"algorithm": "rsassa_pkcs1v15"},
        "signature": key.sign(raw, padding.PKCS1v15(), chosen) if key is not ECDSA else b"x",
    }
    body = cms.SignedData({
        "version": "v1", "digest_algorithms": [{"algorithm": digest}], "certificates": [own],
        "encap_content_info": {"content_type": "data", "content": inner}, "signer_infos": [info],
    })  # fmt: skip
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": body}).dump())


GOOD = message(envelope(csr()))


def walk(data: bytes) -> None:
    found = scep.read_message(data)
    scep.recipient(found)
    read_request(scep.open_envelope(found, REGISTRAR).content)


def code_of(data: bytes) -> str:
    with pytest.raises((MalformedError, RejectedError)) as refused:
        walk(data)
    return refused.value.code


@pytest.mark.parametrize(("cipher", "length"), [(algorithms.AES128, 16), (algorithms.AES256, 32)])
def test_a_request_is_read(cipher: Any, length: int) -> None:
    read = scep.read_message(message(envelope(csr(), cipher=cipher), digest="sha512"))
    assert (read.kind, read.transaction, read.nonce, read.digest) == ("19", "42", b"n" * 16, "sha512")
    assert read.signer == CLIENT
    assert scep.recipient(read) == SERVER.serial_number
    opened = scep.open_envelope(read, REGISTRAR)
    assert (opened.content, opened.key_bytes) == (opened.content, length)
    assert scep.challenge_of(x509.load_der_x509_csr(opened.content)) == "gwc_secret"


def test_the_challenge_may_be_missing() -> None:
    assert scep.challenge_of(x509.load_der_x509_csr(csr(challenge=""))) == ""


def test_what_is_wrong_has_its_code() -> None:
    inner = envelope(csr())
    other = rsa.generate_private_key(65537, 2048)
    weak = rsa.generate_private_key(65537, 1024)
    assert code_of(message(inner, digest="sha1")) == "scep-algorithm"
    assert code_of(message(inner, key=other)) == "scep-signature"  # replayed under another's name
    assert code_of(message(inner, digested=b"another content")) == "scep-signature"
    assert code_of(message(inner, signer=certificate("weak", weak), key=weak)) == "weak-key"
    assert code_of(message(inner, signer=certificate("ecdsa", ECDSA), key=ECDSA)) == "scep-algorithm"
    assert code_of(message(envelope(csr(), certificate("else", other)))) == "scep-envelope"
    assert code_of(message(csr())) == "scep-malformed"
    assert code_of(message(b"")) == "scep-malformed"
    for each in (scep._DIGEST, scep._MESSAGE_TYPE, scep._TRANSACTION, scep._SENDER_NONCE):
        assert code_of(message(inner, without=each)) == "scep-malformed"
    assert code_of(GOOD[:-7]) == "scep-malformed"
    assert code_of(GOOD + b"\0") == "scep-malformed"
    assert code_of(b"\x30" * 65_537) == "scep-too-large"
    assert code_of(b"\x30\x80" * 30_000) == "scep-malformed"


def test_damage_inside_an_envelope_tells_nothing() -> None:
    inner = envelope(csr())
    for at in (-1, -40, 300):
        damaged = bytearray(inner)
        damaged[at] ^= 1
        assert code_of(message(bytes(damaged))) in ("scep-envelope", "scep-malformed", "csr-malformed", "csr-signature")


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nothing_but_refusals_comes_out(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from([GOOD, envelope(csr())])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "add"]))
        if how == "set":
            damaged[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del damaged[at : at + data.draw(st.integers(1, 30))]
        else:
            damaged[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        if not damaged:
            return
    for attempt in (bytes(damaged), message(bytes(damaged))):
        try:
            walk(attempt)
        except (MalformedError, RejectedError):
            continue


def read_answer(data: bytes) -> tuple[dict[str, Any], bytes]:
    signed = cms.ContentInfo.load(data, strict=True)["content"]
    content = signed["encap_content_info"]["content"].native or b""
    signer = signed["signer_infos"][0]
    assert scep._signer_certificate(signed, signer) == SERVER
    return scep._check_signature(signer, content, SERVER), content


def test_the_answer_is_for_the_signer_only() -> None:
    asked = scep.read_message(GOOD)
    opened = scep.open_envelope(asked, REGISTRAR)
    pem = certificate("pump-1", KEY).public_bytes(Encoding.PEM).decode()
    attributes, content = read_answer(scep.granted(asked, opened, (pem,), REGISTRAR, b"m" * 16))
    assert scep._text(attributes, scep._STATUS) == "0"
    assert scep._text(attributes, scep._MESSAGE_TYPE) == "3"
    assert scep._text(attributes, scep._TRANSACTION) == "42"
    assert scep._octets(attributes, scep._RECIPIENT_NONCE) == b"n" * 16
    assert scep._octets(attributes, scep._SENDER_NONCE) == b"m" * 16
    inside = pkcs7.pkcs7_decrypt_der(content, CLIENT, KEY, [])
    assert [each.public_bytes(Encoding.PEM).decode() for each in pkcs7.load_der_pkcs7_certificates(inside)] == [pem]


def test_a_refusal_says_why() -> None:
    asked = scep.read_message(GOOD)
    answer = scep.refused(asked, scep.FailInfo.BAD_REQUEST, "claim-unknown: no", REGISTRAR, b"m" * 16)
    attributes, content = read_answer(answer)
    assert content == b""
    assert scep._text(attributes, scep._STATUS) == "2"
    assert scep._text(attributes, scep._FAIL_INFO) == "2"
    assert core.UTF8String.load(attributes[scep._FAIL_TEXT]).native == "claim-unknown: no"
