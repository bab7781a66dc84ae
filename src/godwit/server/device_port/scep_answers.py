"""What is answered to a message of SCEP: it is read, opened, decided and sealed. Blocks; runs in a thread.

On its own because of asn1crypto, 2 MB that a platform does without whose devices do not speak SCEP.
"""

from os import urandom
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest
from godwit.contract.errors import MalformedError, RejectedError
from godwit.server.device_port.rooms import Rooms
from godwit.server.identity import scep
from godwit.server.identity.model import Credential, Source
from godwit.server.identity.registrar import Registrar
from godwit.server.identity.requests import check_key, common_name, key_fingerprint, read_request

_NONCE_BYTES: Final = 16
_CHALLENGE_BYTES_MAX: Final = 512
_FAILS: Final = {
    "scep-algorithm": scep.FailInfo.BAD_ALG,
    "weak-key": scep.FailInfo.BAD_ALG,
    "weak-signature": scep.FailInfo.BAD_ALG,
    "scep-signature": scep.FailInfo.BAD_MESSAGE_CHECK,
    "scep-envelope": scep.FailInfo.BAD_MESSAGE_CHECK,
    "scep-key-mismatch": scep.FailInfo.BAD_MESSAGE_CHECK,
    "csr-signature": scep.FailInfo.BAD_MESSAGE_CHECK,
    "scep-poll": scep.FailInfo.BAD_CERT_ID,
    "certificate-expired": scep.FailInfo.BAD_TIME,
    "certificate-not-yet-valid": scep.FailInfo.BAD_TIME,
}


def answer(rooms: Rooms, data: bytes, address: str) -> bytes:
    """Return the answer to a message. Raises MalformedError or RejectedError where there is nobody to answer."""
    try:
        message = scep.read_message(data)
    except RejectedError as error:
        rooms.refusals.refused(error.code, f"SCEP: {error}", address)
        raise
    registrar = rooms.registrars.current().registrar
    nonce = urandom(_NONCE_BYTES)
    try:
        registrar = rooms.registrars.of_serial(scep.recipient(message))
        opened = scep.open_envelope(message, registrar)
        grant = _decide(rooms, message, opened.content, address)
    except (MalformedError, RejectedError) as error:
        rooms.refusals.refused(error.code, f"SCEP: {error}", address, common_name(message.signer.subject))
        return _refused(message, error.code, str(error), registrar, nonce)
    if grant.code is not None:
        return _refused(message, grant.code, grant.message or "refused", registrar, nonce)
    return scep.granted(message, opened, (grant.certificate, *grant.chain), registrar, nonce)


def _refused(message: scep.Message, code: str, text: str, registrar: Registrar, nonce: bytes) -> bytes:
    why = _FAILS.get(code, scep.FailInfo.BAD_REQUEST)
    return scep.refused(message, why, f"{code}: {text}", registrar, nonce)


def _decide(rooms: Rooms, message: scep.Message, content: bytes, address: str) -> EnrollmentGrant:
    """Have a request decided. Raises MalformedError or RejectedError."""
    if message.kind == scep.MessageType.CERT_POLL:
        raise RejectedError("nothing is pending here: requests are answered at once", code="scep-poll")
    if message.kind not in (scep.MessageType.PKCS_REQ, scep.MessageType.RENEWAL_REQ):
        raise MalformedError(f"messages of type {message.kind[:8]} are not answered", code="scep-malformed")
    request = read_request(content)
    name, claim = common_name(request.subject), scep.challenge_of(request)
    by: Credential | None = None
    own_key = key_fingerprint(check_key(message.signer.public_key()))
    if message.kind == scep.MessageType.RENEWAL_REQ or own_key != key_fingerprint(check_key(request.public_key())):
        by = _owner(rooms, message, address)
    elif not claim:
        raise RejectedError("the challenge password of the request is the claim token", code="claim-needed")
    if len(claim) > _CHALLENGE_BYTES_MAX:
        raise MalformedError("the challenge password is too long", code="csr-malformed")
    asked = EnrollmentRequest(name, request.public_bytes(Encoding.PEM).decode(), claim=claim if by is None else None)
    return rooms.enroller.enroll(asked, by, Source.SCEP, address=address)


def _owner(rooms: Rooms, message: scep.Message, address: str) -> Credential:
    """Return whose certificate signed. One that nobody knows is another key's than the request's: no possession."""
    try:
        der = message.signer.public_bytes(Encoding.DER)
        return rooms.doorkeeper.of_known(der) or rooms.doorkeeper.take_in(der, address)
    except RejectedError as error:
        if error.code in ("certificate-unknown", "authority-unknown", "unknown-authority"):
            raise RejectedError(
                "the message is signed neither by the key of the request nor by a certificate that counts here",
                code="scep-key-mismatch",
            ) from None
        raise
