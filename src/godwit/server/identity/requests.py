"""Certificate requests (PKCS#10, RFC 2986), read and checked. Pure: they are hostile until proven otherwise."""

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from godwit.contract.errors import MalformedError, RejectedError

REQUEST_BYTES_MAX: Final = 16_384
RSA_BITS_MIN: Final = 2_048
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_WEAK_HASHES: Final = (hashes.MD5, hashes.SHA1)

DeviceKeyType = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def read_request(data: bytes | str) -> x509.CertificateSigningRequest:
    """Return the request in PEM or DER whose signature is its key's, and good enough.

    Raises MalformedError (`csr-malformed`, `csr-too-large`) or RejectedError (`csr-signature`, `weak-key`,
    `weak-signature`).
    """
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > REQUEST_BYTES_MAX:
        raise MalformedError(f"a certificate request has at most {REQUEST_BYTES_MAX} bytes", code="csr-too-large")
    try:
        is_pem = raw.lstrip().startswith(b"-----BEGIN")
        request = x509.load_pem_x509_csr(raw) if is_pem else x509.load_der_x509_csr(raw)
        is_signed = request.is_signature_valid
        key = request.public_key()
        algorithm = request.signature_hash_algorithm
        _ = request.subject, request.extensions, request.attributes  # which are read late, by whoever looks at them
    except (
        ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm, InvalidSignature,
    ) as error:  # fmt: skip
        raise MalformedError(f"this is no certificate request (PKCS#10): {error}", code="csr-malformed") from error
    check_key(key)
    if isinstance(algorithm, _WEAK_HASHES):
        raise RejectedError(f"{algorithm.name} does not sign anything any more: use SHA-256", code="weak-signature")
    if not is_signed:
        raise RejectedError("the request is not signed by its own key", code="csr-signature")
    return request


def check_key(key: object) -> DeviceKeyType:
    """Return a public key that is strong enough. Raises RejectedError (`weak-key`)."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size >= RSA_BITS_MIN:
            return key
        raise RejectedError(f"RSA with {key.key_size} bits is too weak: {RSA_BITS_MIN} or more", code="weak-key")
    raise RejectedError("keys are ECDSA (P-256, P-384, P-521), Ed25519 or RSA from 2048 bits", code="weak-key")


def common_name(name: x509.Name) -> str:
    """Return the one CN of a name, or nothing."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def key_fingerprint(key: DeviceKeyType) -> str:
    """Return the SHA-256 of a key's SubjectPublicKeyInfo (RFC 7469, 2.4, in hexadecimal)."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def check_wishes(request: x509.CertificateSigningRequest, device_id: str, uri: str) -> None:
    """See that a request asks for nothing but a certificate of this device.

    Raises RejectedError (`csr-wrong-name`, `csr-wants-authority`).
    """
    if common_name(request.subject) != device_id:
        raise RejectedError(
            f"the request is for {common_name(request.subject)[:64]!r}, not for {device_id!r}: CN is the device id",
            code="csr-wrong-name",
        )
    for extension in request.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise RejectedError("a device does not get the rights of an authority", code="csr-wants-authority")
        if isinstance(value, x509.KeyUsage) and (value.key_cert_sign or value.crl_sign):
            raise RejectedError("a device does not get the rights of an authority", code="csr-wants-authority")
        if isinstance(value, x509.SubjectAlternativeName):
            others = [each for each in value if each.value not in (device_id, uri)]
            if others:
                raise RejectedError(f"the request names {str(others[0].value)[:64]!r} too", code="csr-wrong-name")
