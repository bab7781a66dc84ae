"""Enrollment, the device's side: a request for a certificate, the check of what is granted, and two roads to ask by.

Whatever is asked is on disk first, so that after a power cut the same key asks again, and is answered the same.
"""

import asyncio
import http.client
import ssl
from collections.abc import Callable
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from godwit.contract.cose_keys import agree_public, verifying_key
from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest, decode_grant, encode
from godwit.contract.errors import MalformedError, RejectedError, UnavailableError
from godwit.contract.limits import TRUSTS_MAX
from godwit.contract.notices import NewMessageKeys
from godwit.contract.topics import ENROLLMENT_QOS, EnrollmentStep, enrollment_topic
from godwit.device.identity_file import Granted
from godwit.device.keys import PublicKey, fingerprint
from godwit.mqtt import packets as p
from godwit.mqtt.client import MqttClient

ANSWER_S_MAX: Final = 30.0
GRANT_BYTES_MAX: Final = 1_048_576
HTTPS_PORT: Final = 8443
LATER: Final = frozenset(("rate-limited", "unavailable", "no-authority"))
"""Refusals that pass."""
_LATER: Final = frozenset((408, 425, 429, 500, 502, 503, 504))

Inspect = Callable[[ssl.SSLObject | ssl.SSLSocket], None]
"""Looks at a connection after its handshake, before a byte of ours leaves; raises what ends it."""


# --- the core ---------------------------------------------------------------------------------------------------------


def read_grant(grant: EnrollmentGrant, device_id: str, key: PublicKey) -> Granted:
    """Return what a grant gives. It came over an authenticated connection, and is looked at all the same.

    Raises RejectedError with the platform's code where it refuses (UnavailableError: for now); MalformedError
    (`grant-malformed`) or RejectedError (`grant-wrong-key`, `grant-wrong-name`, `grant-wrong-chain`) where it gives
    what was not asked for.
    """
    if grant.code in LATER:
        raise UnavailableError(f"the platform cannot enroll now: {grant.message or grant.code}", code=grant.code)
    if grant.code is not None:
        raise RejectedError(grant.message or f"the platform refuses: {grant.code}", code=grant.code)
    try:
        certificate = x509.load_pem_x509_certificate(grant.certificate.encode())
        chain = [x509.load_pem_x509_certificate(each.encode()) for each in grant.chain]
        its_key = certificate.public_key()
    except ValueError as error:
        raise MalformedError(f"the grant's certificates cannot be read: {error}", code="grant-malformed") from None
    if not isinstance(its_key, ec.EllipticCurvePublicKey) or fingerprint(its_key) != fingerprint(key):
        raise RejectedError("the certificate that was granted is of another key", code="grant-wrong-key")
    names = [each.value for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if grant.device_id != device_id or names != [device_id]:
        raise RejectedError(f"the certificate that was granted is not of {device_id}", code="grant-wrong-name")
    below = certificate
    for above in chain:
        if not is_issued_by(below, above):
            raise RejectedError("the certificates that were granted are no chain", code="grant-wrong-chain")
        below = above
    return Granted(
        certificate=grant.certificate,
        chain=tuple(grant.chain),
        roots=read_roots(grant.authorities),
        time=grant.time,
        configuration=grant.configuration,
        platform=read_message_keys(grant),
        taken=tuple(grant.taken),
    )


def is_for(grant: EnrollmentGrant, asked: EnrollmentRequest) -> bool:
    """Whether it may be the answer to a request: a refusal, or a certificate of the key that was asked for.

    What cannot be read may be, and is refused as what it is.
    """
    if not grant.certificate:
        return True
    try:
        certified = x509.load_pem_x509_certificate(grant.certificate.encode()).public_key()
        return bool(certified == x509.load_pem_x509_csr(asked.request.encode()).public_key())
    except ValueError:
        return True


def read_message_keys(grant: EnrollmentGrant) -> NewMessageKeys | None:
    """Return the platform's keys of messages, where it has any. Raises RejectedError (`key-unfit`)."""
    if grant.agree_key is None or grant.sign_key is None:
        return None
    agree_public(grant.agree_key)
    verifying_key(grant.sign_key)
    return NewMessageKeys(grant.agree_key, grant.sign_key, grant.time)


def read_roots(pems: list[str]) -> tuple[str, ...]:
    """Return roots that the platform names. Raises RejectedError (`root-wrong`) for what is none."""
    if len(pems) > TRUSTS_MAX:
        raise RejectedError(f"{len(pems)} roots: {TRUSTS_MAX} at most", code="root-wrong")
    for pem in pems:
        try:
            root = x509.load_pem_x509_certificate(pem.encode())
            is_authority = root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (ValueError, x509.ExtensionNotFound) as error:
            raise RejectedError(f"what the platform names as a root is none: {error}", code="root-wrong") from None
        if not is_authority or not is_issued_by(root, root):
            raise RejectedError(f"{root.subject.rfc4514_string()[:64]} is no root", code="root-wrong")
    return tuple(pems)


def is_issued_by(below: x509.Certificate, above: x509.Certificate) -> bool:
    """Whether a certificate names another as its issuer, and carries its signature."""
    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


# --- roads ------------------------------------------------------------------------------------------------------------


async def ask_by_mqtt(
    host: str,
    port: int,
    asked: EnrollmentRequest,
    *,
    tls: ssl.SSLContext,
    inspect: Inspect,
    version: int = 5,
    timeout_s: float = ANSWER_S_MAX,
) -> EnrollmentGrant:
    """Ask over MQTT, with the claim as password. Raises OSError, UnavailableError, ReasonError, MalformedError."""
    claim, device_id = asked.claim or "", asked.device_id
    connect = p.Connect(
        device_id, version=version, clean_start=True, keep_alive=30, username=device_id, password=claim.encode()
    )
    client = await MqttClient.connect(host, port, connect, tls=tls, inspect=inspect)
    try:
        return await ask_over(client, asked, timeout_s)
    finally:
        await client.disconnect()


async def ask_over(client: MqttClient, asked: EnrollmentRequest, timeout_s: float = ANSWER_S_MAX) -> EnrollmentGrant:
    """Ask over a connection that does nothing else. Raises OSError, UnavailableError, ReasonError, MalformedError."""
    device_id = asked.device_id
    try:
        async with asyncio.timeout(timeout_s):
            topic = enrollment_topic(device_id, EnrollmentStep.GRANT)
            await client.subscribe(p.Subscription(topic, ENROLLMENT_QOS))
            await client.publish(
                enrollment_topic(device_id, EnrollmentStep.REQUEST),
                encode(msgspec.structs.replace(asked, claim=None)),  # it is the connection's
                qos=ENROLLMENT_QOS,
            )
            async for publish in client.messages():
                if publish.topic == topic:
                    client.acknowledge(publish)
                    grant = decode_grant(publish.payload)
                    if is_for(grant, asked):  # else it is late: to a request that was given up
                        return grant
        raise UnavailableError(f"it hung up before it answered: {client.why_closed}")
    except TimeoutError:
        raise UnavailableError(f"it does not answer the request within {timeout_s:g} s") from None


def ask_by_https(
    host: str,
    port: int,
    asked: EnrollmentRequest,
    *,
    tls: ssl.SSLContext,
    inspect: Inspect,
    timeout_s: float = ANSWER_S_MAX,
) -> EnrollmentGrant:
    """Ask over HTTPS: `POST /enroll`. Blocks. Raises OSError, UnavailableError, MalformedError."""
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls)
    try:
        connection.connect()
        inspect(connection.sock)
        connection.request("POST", "/enroll", encode(asked), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read(GRANT_BYTES_MAX)
    except http.client.HTTPException as error:
        raise UnavailableError(f"{host}:{port} does not speak HTTP: {error!r}") from None
    finally:
        connection.close()
    if answer.status in _LATER:
        raise UnavailableError(f"{host}:{port} answers {answer.status} {answer.reason}")
    return read_answer(body, asked.device_id, answer.status)


def read_answer(body: bytes, device_id: str, status: int) -> EnrollmentGrant:
    """Return the grant of an HTTP answer; a problem (RFC 9457) is a refusal. Raises MalformedError."""
    if status < 300:
        return decode_grant(body, "application/json")
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem()
    return EnrollmentGrant(
        device_id, code=problem.code or f"http-{status}", message=problem.message or problem.detail or problem.title
    )


class _Problem(msgspec.Struct):
    code: str | None = None
    message: str | None = None
    detail: str | None = None
    title: str | None = None
