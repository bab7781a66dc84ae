"""Who gets a certificate: the one decision behind every road of enrollment.

Pure: request, credential, what registry and certificates say, and the time go in; admitted or refused comes out.
"""

from fnmatch import fnmatchcase
from typing import Final

import msgspec

from godwit.contract import codes
from godwit.contract.ids import DeviceId
from godwit.server.identity.model import (
    Authority,
    AuthorityState,
    Certificate,
    CertificateState,
    Claim,
    ClaimKind,
    ClaimState,
    Credential,
    Door,
)
from godwit.server.registry.model import Device, Lifecycle

SPEAKING: Final = (Door.CERTIFICATE, Door.TOKEN, Door.JWT)
"""Who came in by these is the device itself, and speaks for it."""
RENEWING: Final = (*SPEAKING, Door.ENDED)
"""Who came in by these is the device itself, and renews."""
CLAIMING: Final = (Door.CLAIM, Door.GRANT)
"""Who came in by these has a claim token; the access token of a device grant is one."""
_UNKNOWN: Final = "this claim is not known, or not good for this device"


class Facts(msgspec.Struct, frozen=True):
    """What is known of a device when it asks. `certificates` are all of its id, the newest first."""

    device: Device | None = None
    certificates: tuple[Certificate, ...] = ()
    has_other_credentials: bool = False
    """It has a device token, or a key for tokens of its own."""
    is_key_of_another: bool = False
    """The key is in a certificate that counts, of another device."""
    claim: Claim | None = None
    authority: Authority | None = None
    """Whoever issued the factory certificate."""
    is_credential_over: bool = False
    """The credential with which a device renews was revoked since it came in."""


class Admitted(msgspec.Struct, frozen=True):
    """It gets a certificate. `again`: the one that this key was given before."""

    again: Certificate | None = None
    is_landing: bool = False
    """It is new: it gets type, groups and configuration."""
    is_replacing: bool = False
    """Other hardware under the same id."""


class Refused(msgspec.Struct, frozen=True):
    """It gets none. `detail` is for the audit log: what the client is not told."""

    code: str
    message: str
    detail: str = ""


Decision = Admitted | Refused

OVER: Final = {
    Door.CERTIFICATE: "certificate-revoked", Door.ENDED: "certificate-expired", Door.TOKEN: "token-revoked",
    Door.JWT: "key-retired",
}  # fmt: skip


def matches(device_id: str, patterns: tuple[str, ...]) -> bool:
    """Whether an id matches one of the patterns (`*`, `?`); none: any id does."""
    return not patterns or any(fnmatchcase(device_id, each) for each in patterns)


def decide(device_id: DeviceId, key: str, by: Credential | None, facts: Facts, now: int) -> Decision:
    """Decide over a request for `device_id`, whose key has the fingerprint `key`."""
    if by is None:
        return Refused("claim-needed", "a device without identity needs a claim token, or a factory certificate")
    refused = _credential(device_id, key, by, facts, now) or _device(by, facts) or _key(key, facts)
    if refused is not None:
        return refused
    again = _again(key, by, facts, now)
    is_new = facts.device is None or facts.device.lifecycle is Lifecycle.UNCLAIMED
    if again is not None or by.door in RENEWING:
        return Admitted(again, is_landing=is_new)
    if facts.claim is not None and _is_used_up(facts.claim):
        return Refused("claim-spent", "this claim has been used as often as it is good for")
    has_identity = facts.has_other_credentials or any(_has_counted(each) for each in facts.certificates)
    return _successor(device_id, by, facts, is_new=is_new) if has_identity else Admitted(is_landing=is_new)


def _credential(device_id: DeviceId, key: str, by: Credential, facts: Facts, now: int) -> Refused | None:
    """See that the credential is good for this id."""
    if 0 < by.ends <= now:
        return Refused("credential-expired", "the credential of this connection has ended")
    if by.door in RENEWING:
        return _own(device_id, by, facts)
    if by.door in CLAIMING:
        return _claim(device_id, key, facts.claim, now)
    if by.door is Door.FACTORY:
        return _factory(device_id, by, facts.authority)
    return Refused("claim-needed", "this credential does not enroll devices: a claim token does")


def _own(device_id: DeviceId, by: Credential, facts: Facts) -> Refused | None:
    """See that a device renews its own, with a credential that counts yet."""
    if by.device_id != device_id:
        return Refused(codes.DEVICE_MISMATCH, f"this connection is not {device_id!r}'s", f"it is {by.device_id!r}")
    if facts.is_credential_over:  # taken away while its connection was open: what was on its way counts no more
        return Refused(OVER[by.door], f"the {by.door} of this connection counts no more")
    return None


def _factory(device_id: DeviceId, by: Credential, authority: Authority | None) -> Refused | None:
    if by.common_name != device_id:
        return Refused(codes.DEVICE_MISMATCH, "the factory certificate is another device's", by.common_name)
    if authority is None or authority.state is AuthorityState.RETIRED or authority.tenant != by.tenant:
        return Refused("authority-not-trusted", "whoever issued the factory certificate is not trusted any more")
    if not matches(device_id, authority.terms.ids):
        return Refused("authority-not-trusted", "the issuer of the factory certificate may not name this device")
    return None


def _claim(device_id: DeviceId, key: str, claim: Claim | None, now: int) -> Refused | None:
    if claim is None:
        return Refused("claim-unknown", _UNKNOWN)
    is_one_time = claim.kind is not ClaimKind.FLEET
    is_bound_to_another = claim.state is ClaimState.BOUND and claim.key_fingerprint != key
    for is_so, refused in (
        (
            claim.device_id not in (None, device_id),
            Refused("claim-unknown", _UNKNOWN, f"it is for {claim.device_id!r}"),
        ),
        (
            not matches(device_id, claim.ids),
            Refused("claim-unknown", _UNKNOWN, f"it is for ids like {', '.join(claim.ids)}"),
        ),
        (claim.state is ClaimState.REVOKED, Refused("claim-revoked", "this claim was revoked")),
        (is_one_time and claim.state is ClaimState.SPENT, Refused("claim-spent", "this claim has been used")),
        (is_one_time and is_bound_to_another, Refused("claim-bound", "this claim was used with another key")),
        (0 < claim.expires <= now, Refused("claim-expired", "this claim has expired")),
    ):
        if is_so:
            return refused
    return None


def _device(by: Credential, facts: Facts) -> Refused | None:
    """See that the device, if there is one, is this tenant's and may connect."""
    device = facts.device
    if device is None:
        gone = Refused(codes.UNKNOWN_DEVICE, "this device is not in the registry any more")
        return gone if by.door in RENEWING else None
    if device.tenant != by.tenant:
        if by.door in CLAIMING:
            return Refused("claim-unknown", _UNKNOWN, "the id is another tenant's")
        return Refused(codes.UNKNOWN_DEVICE, "this device is not in the registry", "the id is another tenant's")
    if device.lifecycle is Lifecycle.RETIRED:
        return Refused(codes.DEVICE_RETIRED, "this device is retired")
    if device.lifecycle is Lifecycle.SUSPENDED:
        return Refused("device-suspended", "this device is suspended")
    return None


def _key(key: str, facts: Facts) -> Refused | None:
    if facts.is_key_of_another:
        return Refused("key-shared", "another device has this key: every device makes its own")
    if any(each.key_fingerprint == key and each.state is CertificateState.REVOKED for each in facts.certificates):
        return Refused("key-revoked", "a certificate of this key was revoked: make a new key")
    return None


def _again(key: str, by: Credential, facts: Facts, now: int) -> Certificate | None:
    """Return the certificate that this key was given, where the answer may have been lost.

    A device that renews under its own key gets a new one, unless the last was never used and is still young.
    """
    for each in facts.certificates:
        if each.key_fingerprint != key or each.not_after <= now:
            continue
        if by.door not in RENEWING:
            return each
        if each.state is CertificateState.PENDING and now - each.created < (each.not_after - each.created) // 2:
            return each
    return None


def _is_used_up(claim: Claim) -> bool:
    return claim.kind is ClaimKind.FLEET and claim.uses_max is not None and claim.uses >= claim.uses_max


def _has_counted(certificate: Certificate) -> bool:
    """Whether a device has lived under this certificate, or was shut out with it."""
    return certificate.state is not CertificateState.PENDING


def _successor(device_id: DeviceId, by: Credential, facts: Facts, *, is_new: bool) -> Decision:
    """Decide over a device that has an identity, and asks as if it had none: reset, replaced, or someone else."""
    names_it = facts.claim is not None and facts.claim.device_id == device_id
    if names_it or is_new:  # `is_new`: it was released, what it was is over
        return Admitted(is_landing=is_new, is_replacing=True)
    was_shut_out = any(each.state is CertificateState.REVOKED for each in facts.certificates)
    if by.door is Door.FACTORY and not was_shut_out and not facts.has_other_credentials:
        return Admitted()  # the same hardware, after a reset: its factory key says so
    return Refused(
        "already-enrolled", f"{device_id!r} has an identity: its hardware is replaced with a claim for this very id"
    )
