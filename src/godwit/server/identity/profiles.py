"""Profiles: what the certificates look like that we issue (RFC 5280), of authorities, servers and devices.

Nothing here asks who may ask; the clock and the serial number are all that is not said by the caller.
"""

import datetime as dt
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from godwit.server.identity.model import Authority
from godwit.server.identity.requests import DeviceKeyType

BACKDATED: Final = dt.timedelta(hours=1)
"""Certificates begin so much earlier: clocks of devices are not exact."""
SERVER_LIFETIME: Final = dt.timedelta(days=397)
"""The longest that today's clients accept (CA/Browser Forum baseline requirements, 6.3.2)."""
COMMON_NAME_MAX: Final = 64

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
ISSUING_KEYS: Final = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)


class Signer(msgspec.Struct, frozen=True):
    """What signs: an authority's certificate with its key, and the PEM of those above it, without the root."""

    authority: Authority
    certificate: x509.Certificate
    key: SigningKey
    chain: tuple[str, ...]


def hash_for(key: SigningKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """Return the hash that a key signs with: one as strong as its curve; Ed25519 has its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256:
        return hashes.SHA384() if key.key_size <= 384 else hashes.SHA512()
    return hashes.SHA256()


def device_uri(tenant: str, device_id: str) -> str:
    """Return the name of a device in its certificate's SAN: with its tenant."""
    return f"urn:godwit:{quote(tenant, safe='')}:{device_id}"


def device_certificate(  # noqa: PLR0917 - whose, then from whom, then times
    key: DeviceKeyType, device_id: str, tenant: str, signer: Signer, now: dt.datetime, lifetime: dt.timedelta
) -> x509.Certificate:
    """Return a device's certificate: it says which device of which tenant this is, and opens TLS as a client."""
    uri = x509.UniformResourceIdentifier(device_uri(tenant, device_id))
    return _end_entity(
        key, common(device_id), [uri], ExtendedKeyUsageOID.CLIENT_AUTH, signer, now, now + lifetime
    ).sign(signer.key, hash_for(signer.key))


def server_certificate(
    key: ec.EllipticCurvePublicKey, names: Sequence[str], signer: Signer, now: dt.datetime, lifetime: dt.timedelta
) -> x509.Certificate:
    """Return the certificate of this server for `names` (DNS names and addresses); the first is its CN if it fits."""
    general = [_general_name(each) for each in names]
    shown = next((each for each in names if len(each) <= COMMON_NAME_MAX), "godwit")
    ends = min(now + lifetime, now - BACKDATED + SERVER_LIFETIME)
    return _end_entity(key, common(shown), general, ExtendedKeyUsageOID.SERVER_AUTH, signer, now, ends).sign(
        signer.key, hash_for(signer.key)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _end_entity(  # noqa: PLR0917
    key: DeviceKeyType,
    subject: x509.Name,
    names: Sequence[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    signer: Signer,
    now: dt.datetime,
    ends: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(ends, signer.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(key_identifier_of(signer.certificate), critical=False)
    )


def key_identifier_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the issuer's key identifier as its own certificate has it: a customer's may be made by other rules."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def authority_certificate(  # noqa: PLR0917 - subject, then issuer, then times
    name: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: SigningKey,
    now: dt.datetime,
    lifetime: dt.timedelta,
    *,
    depth: int,
) -> x509.Certificate:
    """Return an authority's certificate (RFC 5280, 4.2.1.9). `depth`: how many authorities may stand below it."""
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hash_for(issuer_key))
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def common(name: str) -> x509.Name:
    """Return a name of one CN."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
