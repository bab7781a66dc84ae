"""Grace: a certificate of ours that has ended while its device was away still opens its own renewal, and nothing else.

It is for the device that was switched off, not for one that was shut out: its last certificate in use, of an authority
of ours that counts, neither revoked nor superseded. Pure.
"""

from typing import Final, Protocol

from godwit.server.identity.model import CertificateState

DAY_NS: Final = 86_400_000_000_000


class Dated(Protocol):
    """A certificate, as the registry or the roster has it."""

    @property
    def state(self) -> CertificateState:
        """Where it is in its life."""
        ...

    @property
    def not_after(self) -> int:
        """When it ends, ns UTC."""
        ...


def renewable_until(certificate: Dated, days: int) -> int:
    """Return until when a certificate renews itself (ns UTC), as far as its own state says; 0: it does not.

    `days`: the setting RENEWAL_GRACE_DAYS. One that was never used is no device's that was away: its claim is for it.
    """
    if not days or certificate.state is not CertificateState.ACTIVE:
        return 0
    return certificate.not_after + days * DAY_NS


def is_in_grace(certificate: Dated, days: int, now: int) -> bool:
    """Whether a certificate has ended, and renews itself all the same."""
    return certificate.not_after <= now < renewable_until(certificate, days)
