"""Answers about single certificates (OCSP, RFC 6960), for others: bytes in, bytes out, whatever road they came.

Signed by the authority that issued the certificate in question.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from godwit.contract.errors import RejectedError
from godwit.server.identity.crl import Entry, RevocationLists
from godwit.server.identity.profiles import Signer, hash_for

REQUEST_BYTES_MAX: Final = 4_096
NONCE_BYTES_MAX: Final = 32  # RFC 8954, 2.1
GOOD_FOR: Final = dt.timedelta(minutes=5)
_NANOSECONDS: Final = 1_000_000_000

Look = Callable[[str, int], Entry | None]
"""Takes (authority, serial number); why the certificate does not count, or None. RejectedError: not one of ours."""


def answer(data: bytes, signers: Sequence[Signer], look: Look, now: dt.datetime) -> bytes:
    """Return the answer to a request, in DER; also to one that cannot be read."""
    if len(data) > REQUEST_BYTES_MAX:
        return _failed(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
    try:
        request = ocsp.load_der_ocsp_request(data)
        algorithm = request.hash_algorithm
        nonce = _nonce_of(request)
    except (ValueError, NotImplementedError, UnsupportedAlgorithm, x509.DuplicateExtension):
        return _failed(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)  # also: several questions in one
    if request.serial_number <= 0:  # nobody has issued such a certificate, and no answer can hold it
        return _failed(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
    signer = next((each for each in signers if _is_issuer(request, each.certificate, algorithm)), None)
    if signer is None:
        return _failed(ocsp.OCSPResponseStatus.UNAUTHORIZED)
    status, since, reason = ocsp.OCSPCertStatus.GOOD, None, None
    try:
        entry = look(signer.authority.fingerprint, request.serial_number)
    except RejectedError:
        status = ocsp.OCSPCertStatus.UNKNOWN
    else:
        if entry is not None:
            status = ocsp.OCSPCertStatus.REVOKED
            since = dt.datetime.fromtimestamp(entry.since // _NANOSECONDS, dt.UTC)
            reason = x509.ReasonFlags(entry.reason) if entry.reason else None
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response_by_hash(
            request.issuer_name_hash, request.issuer_key_hash, request.serial_number, algorithm, status, now,
            now + GOOD_FOR, since, reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    )  # fmt: skip
    if nonce is not None:
        builder = builder.add_extension(nonce, critical=False)
    return builder.sign(signer.key, hash_for(signer.key)).public_bytes(serialization.Encoding.DER)


def _nonce_of(request: ocsp.OCSPRequest) -> x509.OCSPNonce | None:
    try:
        nonce = request.extensions.get_extension_for_class(x509.OCSPNonce).value
    except x509.ExtensionNotFound:
        return None
    return nonce if len(nonce.nonce) <= NONCE_BYTES_MAX else None


def _is_issuer(request: ocsp.OCSPRequest, issuer: x509.Certificate, algorithm: hashes.HashAlgorithm) -> bool:
    digest = hashes.Hash(algorithm)
    digest.update(issuer.subject.public_bytes())
    if digest.finalize() != request.issuer_name_hash:
        return False
    own = ocsp.OCSPRequestBuilder().add_certificate(issuer, issuer, algorithm).build()
    return own.issuer_key_hash == request.issuer_key_hash


def _failed(status: ocsp.OCSPResponseStatus) -> bytes:
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(serialization.Encoding.DER)


class OcspResponder:
    """Answers from the registry. Thread-safe; blocks."""

    def __init__(self, lists: RevocationLists, signer_of: Callable[..., Signer]) -> None:
        self._lists, self._signer_of = lists, signer_of

    def answer(self, data: bytes) -> bytes:
        """Return the answer to a request."""
        signers = [self._signer_of(each) for each in self._lists.authorities()]
        return answer(data, signers, self._lists.entry, dt.datetime.now(dt.UTC))
