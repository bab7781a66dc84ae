"""Who asks at the port of devices: by certificate, checked at every request, or by what the request says itself."""

import binascii
import ssl
from base64 import b64decode
from collections.abc import Callable
from hashlib import sha256
from time import time_ns
from typing import Final, Protocol

import msgspec
from starlette.requests import Request

from godwit.contract import codes
from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.server.accounts.principal import Principal
from godwit.server.identity.model import CertificateState, Credential, Door
from godwit.server.identity.room import Identity
from godwit.server.registry.door import RegistryDoor
from godwit.server.registry.model import Device, Lifecycle

GATEWAY: Final = "gateway"
"""The field of a device's metadata that names the gateway which speaks for it."""
EVERYBODY: Final = Principal("device-port")


class KnowsDevices(Protocol):
    """Whose credential it is, and whom it may speak for. Blocks: called in threads."""

    def of_certificate(self, der: bytes) -> Credential:
        """Return what a certificate stands for, whose key the client has. Raises RejectedError with the reason."""
        ...

    def of_token(self, token: str) -> Credential:
        """Return what a bearer token stands for. Raises RejectedError."""
        ...

    def check_voice(self, credential: Credential, device_id: DeviceId) -> None:
        """Raise RejectedError unless a credential speaks for a device: its own, or a child's of its gateway."""
        ...


class Doorkeeper:
    """Looks everything up in the database."""

    def __init__(self, registry: RegistryDoor, identity: Identity, now_ns: Callable[[], int] = time_ns) -> None:
        self._registry, self._identity, self._now_ns = registry, identity, now_ns

    def of_certificate(self, der: bytes) -> Credential:
        """See `KnowsDevices`."""
        fingerprint = sha256(der).hexdigest()
        known = self._identity.issuance.find(fingerprint)
        if known is None:
            return self._identity.enrollment.take_in(der)
        now = self._now_ns()
        if known.state is CertificateState.REVOKED:
            raise RejectedError(f"the certificate is revoked ({known.reason})", code="certificate-revoked")
        if now < known.not_before:
            raise RejectedError("the certificate is not valid yet", code="certificate-not-yet-valid")
        if now >= known.not_after:
            raise RejectedError("the certificate has expired", code="certificate-expired")
        device = self._device(known.device_id)
        if device.tenant != known.tenant:
            raise RejectedError("the certificate is of another tenant than the device", code="wrong-tenant")
        if known.state is CertificateState.PENDING:
            self._identity.revocation.seen(fingerprint)
        return Credential(Door.CERTIFICATE, fingerprint, known.tenant, known.device_id, known.not_after)

    def of_token(self, token: str) -> Credential:
        """See `KnowsDevices`."""
        found = self._identity.enrollment.credential_of_claim(token)
        if found is None:
            raise RejectedError("this token is not known, or counts no more", code="unauthorized")
        return found

    def check_voice(self, credential: Credential, device_id: DeviceId) -> None:
        """See `KnowsDevices`."""
        own = credential.device_id
        if own is None:
            raise RejectedError("this credential is for enrollment only", code="forbidden")
        if own != device_id:
            try:
                device = self._registry.device(EVERYBODY, device_id)
            except RejectedError:
                device = None
            if device is None or device.tenant != credential.tenant or device.metadata.get(GATEWAY) != own:
                raise RejectedError(f"{own} does not speak for {device_id!r}", code="forbidden")

    def _device(self, device_id: DeviceId) -> Device:
        try:
            device = self._registry.device(EVERYBODY, device_id)
        except RejectedError:
            raise RejectedError(f"no device {device_id!r} is registered", code=codes.UNKNOWN_DEVICE) from None
        if device.lifecycle in (Lifecycle.SUSPENDED, Lifecycle.RETIRED):
            raise RejectedError(f"the device is {device.lifecycle}", code=f"device-{device.lifecycle}")
        return device


class Said(msgspec.Struct, frozen=True):
    """What a request says of itself: the client's certificate (DER), a bearer token, or name and password."""

    certificate: bytes | None = None
    token: str = ""
    user: str = ""


def said(request: Request) -> Said:
    """Return what a request says of itself. The certificate is TLS's: the client has its key."""
    chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain") or ()
    certificate = ssl.PEM_cert_to_DER_cert(chain[0]) if chain else None
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return Said(certificate, value)
    if scheme.lower() == "basic":
        try:
            user, _, password = b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise RejectedError("the Authorization header cannot be read", code="unauthorized") from None
        return Said(certificate, password, user)
    return Said(certificate)


def identify(request_said: Said, knows: KnowsDevices) -> Credential:
    """Return who asks: a certificate wins over a token. Blocks. Raises RejectedError."""
    if request_said.certificate is not None:
        return knows.of_certificate(request_said.certificate)
    if not request_said.token:
        raise RejectedError(
            "show a client certificate, or say Authorization: Bearer with a device's token", code="unauthorized"
        )
    found = knows.of_token(request_said.token)
    if request_said.user and found.device_id not in (None, request_said.user):
        raise RejectedError("the credential is another device's", code=codes.DEVICE_MISMATCH)
    return found
