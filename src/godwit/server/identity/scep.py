"""Simple Certificate Enrolment Protocol (RFC 8894): its messages. Pure.

A message is a request or certificate, enveloped for its reader (EnvelopedData), then signed (SignedData) with
attributes that say what it is. AES and SHA-2 only: DES, MD5 and SHA-1 are refused, whatever a client asks for.
"""

from enum import IntEnum, StrEnum
from typing import Any, Final

import msgspec
from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import AttributeOID

from godwit.contract.errors import MalformedError, RejectedError
from godwit.server.identity.est import certificates_only
from godwit.server.identity.registrar import MESSAGE_BYTES_MAX, Registrar
from godwit.server.identity.requests import check_key

_TEXT_CHARACTERS_MAX: Final = 255

_ALL_THAT_PARSING_RAISES: Final = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, UnsupportedAlgorithm,
    x509.DuplicateExtension, x509.InvalidVersion,
)  # fmt: skip
"""asn1crypto reads late, and says what is wrong in many ways."""


class MessageType(StrEnum):
    """RFC 8894, 3.2.1.2."""

    CERT_REP = "3"
    RENEWAL_REQ = "17"
    PKCS_REQ = "19"
    CERT_POLL = "20"


class FailInfo(IntEnum):
    """Why not (RFC 8894, 3.2.1.4)."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_TIME = 3
    BAD_CERT_ID = 4


class _Values(core.SetOf):
    _child_spec = core.Any


class _Attribute(core.Sequence):
    _fields = [("type", core.ObjectIdentifier), ("values", _Values)]  # noqa: RUF012 - as asn1crypto wants it


class _Attributes(core.SetOf):
    _child_spec = _Attribute


_VERISIGN: Final = "2.16.840.1.113733.1.9"
_MESSAGE_TYPE: Final = f"{_VERISIGN}.2"
_STATUS: Final = f"{_VERISIGN}.3"
_FAIL_INFO: Final = f"{_VERISIGN}.4"
_SENDER_NONCE: Final = f"{_VERISIGN}.5"
_RECIPIENT_NONCE: Final = f"{_VERISIGN}.6"
_TRANSACTION: Final = f"{_VERISIGN}.7"
_FAIL_TEXT: Final = "1.3.6.1.5.5.7.24.1"
_CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
_DIGEST: Final = "1.2.840.113549.1.9.4"
_DATA: Final = "1.2.840.113549.1.7.1"

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512(),
}  # fmt: skip
_SIGNATURES: Final = ("rsassa_pkcs1v15", "sha256_rsa", "sha384_rsa", "sha512_rsa", "rsassa_pss")
_KEY_BYTES: Final = {"aes128_cbc": 16, "aes192_cbc": 24, "aes256_cbc": 32}
_AES_BLOCK_BYTES: Final = 16


class Message(msgspec.Struct, frozen=True):
    """A message whose signature is its signer's. `envelope` is for our eyes only, and not opened yet."""

    kind: str
    transaction: str
    nonce: bytes
    signer: x509.Certificate
    envelope: bytes
    digest: str


class Opened(msgspec.Struct, frozen=True):
    """What was in an envelope, and how long its AES key was."""

    content: bytes
    key_bytes: int


# --- requests ---------------------------------------------------------------------------------------------------------


def read_message(data: bytes) -> Message:
    """Return a message whose signature holds; whether its signer counts is another question.

    Raises MalformedError (`scep-malformed`, `scep-too-large`) or RejectedError (`scep-signature`, `scep-algorithm`,
    `weak-key`).
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise MalformedError(f"a message has at most {MESSAGE_BYTES_MAX} bytes", code="scep-too-large")
    try:
        return _read_message(data)
    except _ALL_THAT_PARSING_RAISES as error:
        raise _malformed("this is no SCEP message") from error


def _malformed(sentence: str) -> MalformedError:
    return MalformedError(sentence, code="scep-malformed")


def _read_message(data: bytes) -> Message:
    info = cms.ContentInfo.load(data, strict=True)
    if info["content_type"].native != "signed_data":
        raise _malformed("a message is signed (CMS SignedData)")
    signed = info["content"]
    if len(signed["signer_infos"]) != 1:
        raise _malformed("a message has one signer")
    signer = signed["signer_infos"][0]
    content = signed["encap_content_info"]["content"].native or b""
    certificate = _signer_certificate(signed, signer)
    attributes = _check_signature(signer, content, certificate)
    return Message(
        kind=_text(attributes, _MESSAGE_TYPE),
        transaction=_text(attributes, _TRANSACTION),
        nonce=_octets(attributes, _SENDER_NONCE),
        signer=certificate,
        envelope=content,
        digest=signer["digest_algorithm"]["algorithm"].native,
    )


def _signer_certificate(signed: Any, signer: Any) -> x509.Certificate:
    named = signer["sid"]
    if named.name != "issuer_and_serial_number":
        raise _malformed("the signer is named by issuer and serial number")
    for each in signed["certificates"]:
        found = each.chosen
        if not isinstance(found, asn1.Certificate):
            continue
        if (found.serial_number, found.issuer.dump()) == (
            named.chosen["serial_number"].native,
            named.chosen["issuer"].dump(),
        ):
            certificate = x509.load_der_x509_certificate(found.dump())
            _ = certificate.subject, certificate.issuer, certificate.extensions  # which are read late
            return certificate
    raise _malformed("the certificate of the signer is missing")


def _check_signature(signer: Any, content: bytes, certificate: x509.Certificate) -> dict[str, Any]:
    """Return the signed attributes."""
    digest = signer["digest_algorithm"]["algorithm"].native
    algorithm = signer["signature_algorithm"]["algorithm"].native
    if digest not in _HASHES or algorithm not in _SIGNATURES:
        raise RejectedError(f"{digest} with {algorithm}: sign with RSA and SHA-256 or better", code="scep-algorithm")
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise RejectedError("SCEP encrypts answers to the signer's key, which has to be RSA", code="scep-algorithm")
    check_key(key)
    raw = b"\x31" + signer["signed_attrs"].dump()[1:]  # signed as a SET, sent as [0] (RFC 5652, 5.4)
    attributes: dict[str, Any] = {}
    for each in _Attributes.load(raw, strict=True):
        if each["type"].dotted in attributes:
            raise _malformed("an attribute is there twice")
        if len(each["values"]) == 1:
            attributes[each["type"].dotted] = each["values"][0].dump()
    chosen = _HASHES[digest]
    hashed = hashes.Hash(chosen)
    hashed.update(content)
    pad: padding.AsymmetricPadding = padding.PKCS1v15()
    if algorithm == "rsassa_pss":
        pad = padding.PSS(padding.MGF1(chosen), padding.PSS.AUTO)
    try:
        key.verify(signer["signature"].native, raw, pad, chosen)
    except InvalidSignature:
        raise RejectedError("the signature of the message is wrong", code="scep-signature") from None
    if _octets(attributes, _DIGEST) != hashed.finalize():
        raise RejectedError("the message is not what was signed", code="scep-signature")
    return attributes


def _text(attributes: dict[str, Any], name: str) -> str:
    found = core.PrintableString.load(attributes[name], strict=True).native
    if not 0 < len(found) <= _TEXT_CHARACTERS_MAX:
        raise _malformed("an attribute is too long")
    return str(found)


def _octets(attributes: dict[str, Any], name: str) -> bytes:
    found = core.OctetString.load(attributes[name], strict=True).native
    if len(found) > _TEXT_CHARACTERS_MAX:
        raise _malformed("an attribute is too long")
    return bytes(found)


def recipient(message: Message) -> int:
    """Return the serial number of the certificate that an envelope is for.

    Raises MalformedError (`scep-malformed`) or RejectedError (`scep-algorithm`).
    """
    try:
        return int(_recipient(_envelope(message))["rid"].chosen["serial_number"].native)
    except _ALL_THAT_PARSING_RAISES as error:
        raise _malformed("the envelope cannot be read") from error


def _envelope(message: Message) -> Any:
    info = cms.ContentInfo.load(message.envelope, strict=True)
    if info["content_type"].native != "enveloped_data":
        raise _malformed("what is signed is an envelope (CMS EnvelopedData)")
    cipher = info["content"]["encrypted_content_info"]["content_encryption_algorithm"]["algorithm"].native
    if cipher not in _KEY_BYTES:
        raise RejectedError(f"{cipher}: encrypt with AES-CBC", code="scep-algorithm")
    return info["content"]


def _recipient(envelope: Any) -> Any:
    if len(envelope["recipient_infos"]) != 1 or envelope["recipient_infos"][0].name != "ktri":
        raise _malformed("an envelope has one recipient")
    return envelope["recipient_infos"][0].chosen


def open_envelope(message: Message, registrar: Registrar) -> Opened:
    """Return what is in the envelope.

    Raises MalformedError (`scep-malformed`) or RejectedError (`scep-algorithm`, `scep-envelope`). Whatever is wrong
    with what was encrypted gets one answer: nobody learns from it about the key (RFC 3218).
    """
    try:
        envelope = _envelope(message)
        wrapped = _recipient(envelope)
        how = wrapped["key_encryption_algorithm"]["algorithm"].native
        encrypted = envelope["encrypted_content_info"]
        algorithm = encrypted["content_encryption_algorithm"]
        cipher, vector = algorithm["algorithm"].native, algorithm["parameters"].native
        secret, sealed = wrapped["encrypted_key"].native, encrypted["encrypted_content"].native
    except _ALL_THAT_PARSING_RAISES as error:
        raise _malformed("the envelope cannot be read") from error
    pad: padding.AsymmetricPadding = padding.PKCS1v15()
    if how == "rsaes_oaep":
        pad = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    elif how != "rsaes_pkcs1v15":
        raise RejectedError(f"{how}: encrypt the key with RSA", code="scep-algorithm")
    try:
        key = registrar.key.decrypt(secret, pad)
        if len(key) != _KEY_BYTES[cipher]:
            raise _unreadable()
        decryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).decryptor()
        unpadder = PKCS7(_AES_BLOCK_BYTES * 8).unpadder()
        plain = unpadder.update(decryptor.update(sealed) + decryptor.finalize()) + unpadder.finalize()
    except (ValueError, TypeError):
        raise _unreadable() from None
    return Opened(plain, len(key))


def _unreadable() -> RejectedError:
    return RejectedError("the envelope is not for this server, or damaged", code="scep-envelope")


def challenge_of(request: x509.CertificateSigningRequest) -> str:
    """Return the challenge password of a request: the claim token; empty: there is none."""
    try:
        return request.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value.decode()
    except (x509.AttributeNotFound, ValueError, TypeError):
        return ""


# --- answers ----------------------------------------------------------------------------------------------------------


def granted(
    message: Message, opened: Opened, certificates: tuple[str, ...], registrar: Registrar, nonce: bytes
) -> bytes:
    """Return the answer with the certificates (PEM, the new one first), for the signer's eyes only."""
    cipher = algorithms.AES128 if opened.key_bytes == _KEY_BYTES["aes128_cbc"] else algorithms.AES256
    envelope = (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(certificates_only(certificates))
        .set_content_encryption_algorithm(cipher)
        .add_recipient(message.signer)
        .encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )
    return _answer(message, envelope, {_STATUS: core.PrintableString("0")}, registrar, nonce)


def refused(message: Message, why: FailInfo, text: str, registrar: Registrar, nonce: bytes) -> bytes:
    """Return the answer that says no, and why."""
    attributes = {
        _STATUS: core.PrintableString("2"),
        _FAIL_INFO: core.PrintableString(str(int(why))),
        _FAIL_TEXT: core.UTF8String(text[:_TEXT_CHARACTERS_MAX]),
    }
    return _answer(message, None, attributes, registrar, nonce)


def _answer(message: Message, content: bytes | None, said: dict[str, Any], registrar: Registrar, nonce: bytes) -> bytes:
    hashed = hashes.Hash(_HASHES[message.digest])
    hashed.update(content or b"")
    signed = {
        _CONTENT_TYPE: core.ObjectIdentifier(_DATA),
        _DIGEST: core.OctetString(hashed.finalize()),
        _MESSAGE_TYPE: core.PrintableString(MessageType.CERT_REP),
        _TRANSACTION: core.PrintableString(message.transaction),
        _SENDER_NONCE: core.OctetString(nonce),
        _RECIPIENT_NONCE: core.OctetString(message.nonce),
        **said,
    }
    attributes = _Attributes([_Attribute({"type": name, "values": [value]}) for name, value in signed.items()]).dump()
    own = asn1.Certificate.load(registrar.certificate.public_bytes(Encoding.DER))
    digest = algos.DigestAlgorithm({"algorithm": message.digest})
    signer = cms.SignerInfo({
        "version": "v1",
        "sid": cms.SignerIdentifier(
            "issuer_and_serial_number",
            cms.IssuerAndSerialNumber({"issuer": own.issuer, "serial_number": own.serial_number}),
        ),
        "digest_algorithm": digest,
        "signed_attrs": cms.CMSAttributes.load(attributes),
        "signature_algorithm": {"algorithm": "rsassa_pkcs1v15"},
        "signature": registrar.key.sign(attributes, padding.PKCS1v15(), _HASHES[message.digest]),
    })  # fmt: skip
    inner: dict[str, Any] = {"content_type": "data"}
    if content is not None:
        inner["content"] = content
    body = cms.SignedData({
        "version": "v1",
        "digest_algorithms": [digest],
        "encap_content_info": inner,
        "certificates": [own],
        "signer_infos": [signer],
    })  # fmt: skip
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": body}).dump())
