"""What the roads of enrollment (MQTT, HTTPS, EST, SCEP) ask of it: one door, whatever the road."""

from typing import Protocol

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest
from godwit.server.identity.model import Credential, Source


class Enroller(Protocol):
    """Decides over requests. Blocks: called in threads."""

    def credential_of_claim(self, token: str) -> Credential | None:
        """Return what a claim token stands for (`Door.CLAIM`), or None: unknown, spent, revoked or expired."""
        ...

    def enroll(
        self, asked: EnrollmentRequest, by: Credential | None, source: Source, *, address: str = ""
    ) -> EnrollmentGrant:
        """Return the grant, or a refusal with its code; audited either way. Never raises for what a client may do.

        `by`: the credential of the connection (claim, factory certificate, or the device's own certificate, token or
        key: then it renews); None: `asked.claim` says it. The same key that asks again is answered the same.
        """
        ...

    def take_in(self, der: bytes, *, address: str = "") -> Credential:
        """Return whom a certificate of a trusted authority lets in that is not among those we know.

        A factory certificate opens enrollment (`Door.FACTORY`); one of an authority that is `just_in_time` is its
        device, taken in now. Raises RejectedError or MalformedError, audited.
        """
        ...
