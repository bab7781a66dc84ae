"""Who asks at the port of devices: by certificate, checked at every request, or by what the request says itself."""

import binascii
import ssl
from base64 import b64decode
from hashlib import sha256

import msgspec
from starlette.requests import Request

from godwit.contract.credentials import RENEWAL_USER
from godwit.contract.errors import RejectedError
from godwit.contract.ids import DeviceId
from godwit.mqtt.packets import Connect
from godwit.server.broker.authentication import FleetAuthenticator
from godwit.server.broker.refusals import Denial
from godwit.server.broker.rights import Grant
from godwit.server.identity.admission import SPEAKING
from godwit.server.identity.claims import PREFIX
from godwit.server.identity.model import Credential, Door
from godwit.server.identity.room import Identity


class Said(msgspec.Struct, frozen=True):
    """What a request says of itself: the client's certificate (DER), a bearer token, or name and password."""

    certificate: bytes | None = None
    token: str = ""
    user: str = ""


class Doorkeeper:
    """Knows whose credential it is, and whom it may speak for. Certificates are judged as the broker judges them."""

    def __init__(self, identity: Identity, fleet: FleetAuthenticator) -> None:
        self._identity, self._fleet = identity, fleet

    def of_known(self, der: bytes) -> Credential | None:
        """Return what a certificate of the registry stands for, None for any other. Does not block.

        One that has ended, and is in grace, stands for its renewal (`Door.ENDED`). Raises RejectedError with the
        reason why it does not count.
        """
        fingerprint = sha256(der)
        known = self._identity.roster.certificate(fingerprint.digest())
        if known is None:
            return None
        decision = self._fleet.authenticate("tls", Connect("", username=RENEWAL_USER), der, "")
        if isinstance(decision, Denial):
            raise RejectedError(decision.text, code=decision.code)
        assert isinstance(decision, Grant)  # what the roster knows needs no other question
        return decision.credential

    def take_in(self, der: bytes, address: str) -> Credential:
        """Return what another certificate stands for. Blocks. Raises RejectedError, which is audited."""
        return self._identity.enrollment.take_in(der, address=address)

    def of_token(self, spoken: Said, about: str, address: str) -> Credential:
        """Return what a token stands for: a claim, or the device `about` (its token, or what it has signed itself).

        Blocks. Raises RejectedError.
        """
        if not spoken.token:
            raise RejectedError(
                "show a client certificate, or say Authorization: Bearer with a device's token", code="unauthorized"
            )
        if spoken.token.startswith(PREFIX):
            found = self._identity.enrollment.credential_of_claim(spoken.token)
            if found is None:
                raise RejectedError("this token is not known, or counts no more", code="unauthorized")
            return found
        name = spoken.user or about
        decision = self._fleet.authenticate(
            "tls", Connect(name, username=name, password=spoken.token.encode()), None, address
        )
        if isinstance(decision, Denial) and decision.code != "credentials-wrong":
            raise RejectedError(decision.text, code=decision.code)
        if not isinstance(decision, Grant) or decision.credential is None:
            raise RejectedError("this token is not known, or counts no more", code="unauthorized")
        return decision.credential

    def check_voice(self, credential: Credential, device_id: DeviceId) -> None:
        """Raise RejectedError unless a credential speaks for a device: its own, or a child's of its gateway."""
        own = credential.device_id
        if credential.door is Door.ENDED:
            raise RejectedError("the certificate has expired: it is good for its own renewal only",
                                code="certificate-expired")  # fmt: skip
        if own is None or credential.door not in SPEAKING:
            raise RejectedError("this credential is for enrollment only", code="forbidden")
        if own != device_id:
            child = self._identity.roster.devices.get(device_id)
            if child is None or child.tenant != credential.tenant or child.gateway != own:
                raise RejectedError(f"{own} does not speak for {device_id!r}", code="forbidden")


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
