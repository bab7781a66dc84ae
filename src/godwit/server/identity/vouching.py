"""Certificates that others issued: read, and checked against the authority that we trust for them. Pure."""

import datetime as dt
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId, parse_device_id
from godwit.server.identity.admission import matches
from godwit.server.identity.authorities import nanoseconds
from godwit.server.identity.model import Authority, AuthorityState, Certificate, CertificateState, Source
from godwit.server.identity.requests import REQUEST_BYTES_MAX, check_key, common_name, key_fingerprint

_WEAK_HASHES: Final = (hashes.MD5, hashes.SHA1)
SERIAL_BITS_MAX: Final = 160
"""RFC 5280, 4.1.2.2."""
_CLIENT: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


def read_certificate(data: bytes | str) -> x509.Certificate:
    """Return a certificate in PEM or DER, strong enough. Of several in PEM the first counts: it is the device's.

    Raises MalformedError (`certificate-malformed`, `certificate-too-large`) or RejectedError (`weak-key`,
    `weak-signature`).
    """
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > REQUEST_BYTES_MAX:
        raise MalformedError(f"a certificate has at most {REQUEST_BYTES_MAX} bytes", code="certificate-too-large")
    try:
        is_pem = raw.lstrip().startswith(b"-----BEGIN")
        certificate = x509.load_pem_x509_certificate(raw) if is_pem else x509.load_der_x509_certificate(raw)
        key = certificate.public_key()
        algorithm = certificate.signature_hash_algorithm
        _ = certificate.subject, certificate.issuer, certificate.extensions  # which are read late
        serial = certificate.serial_number
    except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        raise MalformedError(f"this is no certificate (X.509): {error}", code="certificate-malformed") from error
    if not 0 < serial < 1 << SERIAL_BITS_MAX:
        raise MalformedError(
            f"a serial number is positive, with {SERIAL_BITS_MAX} bits at most", code="certificate-malformed"
        )
    check_key(key)
    if isinstance(algorithm, _WEAK_HASHES):
        raise RejectedError(f"{algorithm.name} does not sign anything any more: use SHA-256", code="weak-signature")
    return certificate


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed it, under its own name."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def issuer_of(certificate: x509.Certificate, authorities: list[Authority]) -> Authority | None:
    """Return which authority signed a certificate; whether it counts is another question."""
    name = certificate.issuer.rfc4514_string()[:512]
    for each in authorities:
        if each.subject == name and is_issued_by(
            certificate, x509.load_pem_x509_certificate(each.certificate.encode())
        ):
            return each
    return None


def check_voucher(certificate: x509.Certificate, authority: Authority, now: dt.datetime) -> DeviceId:
    """Return the device that a certificate of a trusted authority names.

    Raises RejectedError (`authority-not-trusted`, `certificate-expired`, `certificate-not-yet-valid`,
    `certificate-purpose`, `certificate-wrong-name`).
    """
    at = nanoseconds(now)
    if authority.state is AuthorityState.RETIRED or not authority.not_before <= at < authority.not_after:
        raise RejectedError("whoever issued this certificate is not trusted any more", code="authority-not-trusted")
    if now < certificate.not_valid_before_utc:
        raise RejectedError("this certificate is not valid yet", code="certificate-not-yet-valid")
    if now >= certificate.not_valid_after_utc:
        raise RejectedError("this certificate has expired", code="certificate-expired")
    _check_purpose(certificate)
    name = common_name(certificate.subject)
    try:
        device_id = parse_device_id(name)
    except MalformedError as error:
        raise RejectedError(
            f"the CN of the certificate is no device id: {error}", code="certificate-wrong-name"
        ) from None
    if not matches(device_id, authority.terms.ids):
        raise RejectedError(
            f"{authority.name} may not name {device_id!r}: its terms say {', '.join(authority.terms.ids)}",
            code="certificate-wrong-name",
        )
    return device_id


def _check_purpose(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        value = extension.value
        is_authority = isinstance(value, x509.BasicConstraints) and value.ca
        is_for_others = isinstance(value, x509.ExtendedKeyUsage) and not any(each in _CLIENT for each in value)
        is_signing_only = isinstance(value, x509.KeyUsage) and not value.digital_signature
        if is_authority or is_for_others or is_signing_only:
            raise RejectedError("this is not a certificate of a client", code="certificate-purpose")


def describe_certificate(
    certificate: x509.Certificate, authority: Authority, device_id: DeviceId, source: Source, now: int
) -> Certificate:
    """Return the row of a certificate that a tenant's authority issued."""
    assert authority.tenant is not None
    return Certificate(
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        device_id=device_id,
        tenant=authority.tenant,
        authority=authority.fingerprint,
        serial=f"{certificate.serial_number:x}",
        key_fingerprint=key_fingerprint(check_key(certificate.public_key())),
        state=CertificateState.PENDING,
        source=source,
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        not_before=nanoseconds(certificate.not_valid_before_utc),
        not_after=nanoseconds(certificate.not_valid_after_utc),
        created=now,
    )
