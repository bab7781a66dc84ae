"""Revocation lists and OCSP: what others read of the registry. `openssl` judges them in tests/real."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.identity.model import Certificate

ADMIN = Principal("admin")


def listed(rooms) -> dict[int, str]:
    found = x509.load_der_x509_crl(rooms.identity.lists.of())
    assert found.is_signature_valid(rooms.authorities.signer().certificate.public_key())
    reasons = {}
    for each in found:
        extensions = list(each.extensions)
        reasons[each.serial_number] = extensions[0].value.reason.value if extensions else ""
    return reasons


def test_a_list_has_the_revoked_and_those_of_suspended_devices(rooms):
    first, second, third = (rooms.enrolled(f"pump-{each}") for each in range(3))
    before = x509.load_der_x509_crl(rooms.identity.lists.of())
    assert rooms.identity.lists.of() is rooms.identity.lists.of()  # kept
    assert listed(rooms) == {}
    rooms.identity.revocation.revoke(first.fingerprint, "keyCompromise", "ann")
    rooms.identity.revocation.revoke(second.fingerprint, "unspecified", "ann")
    rooms.registry.change_device(ADMIN, DeviceId("pump-2"), {"lifecycle": "suspended"})
    serials = [int(each.serial, 16) for each in (first, second, third)]
    assert listed(rooms) == dict(zip(serials, ("keyCompromise", "", "certificateHold"), strict=True))
    rooms.registry.change_device(ADMIN, DeviceId("pump-2"), {"lifecycle": "active"})
    assert set(listed(rooms)) == set(serials[:2])
    after = x509.load_der_x509_crl(rooms.identity.lists.of())
    number = x509.CRLNumber
    assert (
        after.extensions.get_extension_for_class(number).value.crl_number
        > before.extensions.get_extension_for_class(number).value.crl_number
    )
    assert rooms.identity.lists.pem().count(b"BEGIN X509 CRL") == 1
    with pytest.raises(RejectedError):
        rooms.identity.lists.of("00" * 32)


def asked(rooms, certificate: Certificate, issuer=None, nonce: bytes | None = None) -> ocsp.OCSPResponse:
    subject = x509.load_pem_x509_certificate(certificate.certificate.encode())
    issuer = issuer or rooms.authorities.signer().certificate
    builder = ocsp.OCSPRequestBuilder().add_certificate(subject, issuer, hashes.SHA1())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    data = builder.build().public_bytes(serialization.Encoding.DER)
    return ocsp.load_der_ocsp_response(rooms.identity.ocsp.answer(data))


def test_answers_about_one_certificate(rooms):
    made = rooms.enrolled()
    told = asked(rooms, made, nonce=b"n" * 16)
    assert (told.certificate_status, told.responder_key_hash) == (
        ocsp.OCSPCertStatus.GOOD,
        x509.SubjectKeyIdentifier.from_public_key(rooms.authorities.signer().key.public_key()).digest,
    )
    assert told.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 16
    rooms.registry.change_device(ADMIN, made.device_id, {"lifecycle": "suspended"})
    assert asked(rooms, made).revocation_reason is x509.ReasonFlags.certificate_hold
    rooms.identity.revocation.revoke(made.fingerprint, "keyCompromise", "ann")
    told = asked(rooms, made)
    assert told.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert told.revocation_reason is x509.ReasonFlags.key_compromise
    assert told.revocation_time_utc <= dt.datetime.now(dt.UTC)
    known = ocsp.OCSPRequestBuilder().add_certificate(
        x509.load_pem_x509_certificate(made.certificate.encode()),
        rooms.authorities.signer().certificate,
        hashes.SHA256(),
    )
    named = known.build()
    unknown = (
        ocsp.OCSPRequestBuilder()
        .add_certificate_by_hash(named.issuer_name_hash, named.issuer_key_hash, 4711, hashes.SHA256())
        .build()
    )
    told = ocsp.load_der_ocsp_response(rooms.identity.ocsp.answer(unknown.public_bytes(serialization.Encoding.DER)))
    assert told.certificate_status is ocsp.OCSPCertStatus.UNKNOWN


def test_hostile_questions(rooms):
    made = rooms.enrolled()
    root = x509.load_pem_x509_certificate(rooms.authorities.anchors()[0].encode())
    assert asked(rooms, made, issuer=root).response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED
    for rubbish in (b"", b"\x30", b"\x30\x80" + b"\x00" * 100, b"x" * 10_000):
        told = ocsp.load_der_ocsp_response(rooms.identity.ocsp.answer(rubbish))
        assert told.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST
