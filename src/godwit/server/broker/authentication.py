"""Who a connection is: by certificate, token, signed claim or password. Decided at every CONNECT, resumed TLS or not.

OpenSSL has verified that the client has its certificate's key, and that somebody whom we trust issued it. Everything
else is looked up here, in the roster: the certificate by its fingerprint, its dates, its authority and what that may
name, the device and its life. What would have to wait for the database is handed back as a question, to be asked in a
thread.
"""

import hmac
from collections.abc import Callable
from fnmatch import fnmatchcase
from hashlib import sha256
from time import time_ns
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId, TenantId, parse_device_id
from godwit.mqtt import reasons
from godwit.mqtt.packets import Connect
from godwit.server.broker.refusals import Denial
from godwit.server.broker.rights import (
    INSIDE,
    LOOPBACK,
    DeviceRights,
    EnrollmentRights,
    Grant,
    LocalRights,
    Rights,
)
from godwit.server.identity.authorities import nanoseconds
from godwit.server.identity.model import Authority, AuthorityKind, AuthorityState, CertificateState, Credential, Door
from godwit.server.identity.requests import check_key, common_name
from godwit.server.identity.roster import KnownAuthority, Roster
from godwit.server.registry.model import Lifecycle

Decision = Grant | Denial
NO_AUTHORITY: Final = Denial("authority-unknown", "nobody who is trusted here issued the certificate")


class Switches(msgspec.Struct, frozen=True):
    """Which credentials count (settings)."""

    certificates: bool = True
    tokens: bool = True
    jwt: bool = True


class PasswordAuthenticator:
    """The loopback listener admits everybody; others only who says the one user name and password, if there is one."""

    def __init__(self, username: str = "", password: str = "") -> None:
        self._username = username
        self._password = password

    def authenticate(self, listener: str, connect: Connect, certificate: bytes | None, address: str) -> Decision:
        """See `Authenticator`."""
        del certificate, address  # the fleet's authenticator looks at them
        if listener in LOOPBACK:
            return Grant(may_register=True)
        if listener == INSIDE:
            return Grant(identity=connect.client_id)
        if self.is_pair(connect):
            return Grant(identity=connect.username)
        return Denial("credentials-wrong", "not authorised: this listener asks for a user name and a password")

    def rights_of(self, identity: str, terms: str, client_id: str) -> Rights | None:
        """See `Authenticator`."""
        del identity, terms, client_id
        return None

    def is_pair(self, connect: Connect) -> bool:
        """Whether a client says the user name and password of the settings."""
        if not self._username or not self._password or connect.username is None or connect.password is None:
            return False
        is_user = hmac.compare_digest(connect.username.encode(), self._username.encode())
        is_password = hmac.compare_digest(connect.password, self._password.encode())
        return is_user and is_password


class FleetAuthenticator:
    """Knows the fleet."""

    def __init__(
        self,
        roster: Roster,
        may_answer: Callable[[str, str], bool],
        pair: PasswordAuthenticator | None = None,
        switches: Switches | None = None,
        *,
        seen: Callable[[str], None] = lambda _fingerprint: None,
        now_ns: Callable[[], int] = time_ns,
    ) -> None:
        self._roster, self._may_answer = roster, may_answer
        self._pair = pair or PasswordAuthenticator()
        self._switches = switches or Switches()
        self._seen = seen
        """Told of a certificate that is used for the first time."""
        self._now_ns = now_ns

    def authenticate(self, listener: str, connect: Connect, certificate: bytes | None, address: str) -> Decision:
        """See `Authenticator`."""
        if listener in LOOPBACK:
            return self._on_loopback(connect)
        if listener == INSIDE:
            return self._pair.authenticate(listener, connect, certificate, address)
        if certificate is not None and self._switches.certificates:
            return self._by_certificate(connect, certificate)
        if self._pair.is_pair(connect):
            return Grant(identity=connect.username)
        if connect.password is None:
            return Denial(
                "credentials-needed", "this listener asks for a certificate, a token, or a user name and a password"
            )
        return Denial("credentials-wrong", "user name or password is wrong", reasons.NOT_AUTHORIZED)

    def rights_of(self, identity: str, terms: str, client_id: str) -> Rights | None:
        """See `Authenticator`."""
        del terms
        if identity.startswith("device:"):
            return DeviceRights(self._roster, identity.removeprefix("device:"), self._may_answer)
        return LocalRights(self._roster, client_id) if not identity else None

    def _on_loopback(self, connect: Connect) -> Decision:
        if self._roster.is_claimed(connect.client_id):
            return Denial(
                "device-claimed",
                f"{connect.client_id} has an owner: it connects by TLS, with its certificate or token",
                reasons.CLIENT_IDENTIFIER_NOT_VALID,
            )
        return Grant(rights=LocalRights(self._roster, connect.client_id), may_register=True, is_unproven=True)

    def judge_again(self, credential: Credential, certificate: bytes | None, client_id: str) -> Denial | None:
        """See `Judge`."""
        connect = Connect(client_id)
        if credential.door in (Door.CERTIFICATE, Door.FACTORY) and certificate is not None:
            return _denial(self._by_certificate(connect, certificate))
        return _denial(self._as_device(connect, credential)) if credential.device_id is not None else None

    def judge_stranger(self, client_id: str) -> Denial | None:
        """See `Judge`."""
        return _denial(self._on_loopback(Connect(client_id)))

    # --- certificates -----------------------------------------------------------------------------------------------

    def _by_certificate(self, connect: Connect, der: bytes) -> Decision:
        fingerprint = sha256(der).digest()
        known = self._roster.certificate(fingerprint)
        if known is None:
            return self._by_unknown_certificate(connect, der, fingerprint.hex())
        authority = self._roster.authorities.get(known.authority)
        if known.state is CertificateState.REVOKED:
            return Denial("certificate-revoked", f"the certificate is revoked ({known.reason or 'unspecified'})")
        denied = self._out_of_time(known.not_before, known.not_after) or self._unfit_authority(authority)
        if denied is not None:
            return denied
        credential = Credential(
            Door.CERTIFICATE, fingerprint.hex(), TenantId(known.tenant), DeviceId(known.device_id), known.not_after
        )
        decision = self._as_device(connect, credential, authority.row if authority is not None else None)
        if known.state is CertificateState.PENDING and isinstance(decision, Grant):
            self._seen(credential.name)
        return decision

    def _out_of_time(self, not_before: int, not_after: int) -> Denial | None:
        now = self._now_ns()
        if now < not_before:
            return Denial("certificate-not-yet-valid", "the certificate is not valid yet: is the device's clock right?")
        return Denial("certificate-expired", "the certificate has expired") if now >= not_after else None

    def _unfit_authority(self, authority: KnownAuthority | None) -> Denial | None:
        if authority is None or authority.row.state is AuthorityState.RETIRED:
            return NO_AUTHORITY
        if self._now_ns() >= authority.row.not_after:
            return Denial("authority-expired", "the authority that issued the certificate has expired")
        return None

    def _by_unknown_certificate(self, connect: Connect, der: bytes, fingerprint: str) -> Decision:
        """Judge a certificate that the registry does not have: only a customer's or a factory's authority vouches."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            authority = self._issuer(certificate)
            check_key(certificate.public_key())
            device_id = parse_device_id(common_name(certificate.subject))
        except (MalformedError, RejectedError) as error:
            is_name = isinstance(error, MalformedError)
            return Denial("certificate-wrong-name" if is_name else error.code, f"its certificate: {error}")
        except (ValueError, UnsupportedAlgorithm) as error:
            return Denial("certificate-malformed", f"the certificate cannot be read: {error}")
        ends = nanoseconds(certificate.not_valid_after_utc)
        denied = self._unfit_authority(authority) or self._out_of_time(
            nanoseconds(certificate.not_valid_before_utc), ends
        )
        if denied is not None or authority is None:
            return denied or NO_AUTHORITY
        row = authority.row
        if row.kind in (AuthorityKind.ROOT, AuthorityKind.ISSUING):
            return Denial("certificate-unknown", "the registry does not have this certificate")
        known = self._roster.devices.get(device_id)
        tenant = row.tenant or TenantId(known.tenant if known is not None else "")
        if row.kind is AuthorityKind.FACTORY and not row.terms.just_in_time:
            return self._to_enroll(
                connect, Credential(Door.FACTORY, fingerprint, tenant, None, ends, row.fingerprint, device_id), row
            )
        return self._as_device(connect, Credential(Door.CERTIFICATE, fingerprint, tenant, device_id, ends), row)

    def _issuer(self, certificate: x509.Certificate) -> KnownAuthority | None:
        for each in self._roster.issuers(certificate.issuer):
            try:
                certificate.verify_directly_issued_by(each.certificate)
            except (InvalidSignature, ValueError, TypeError):
                continue
            return each
        return None

    def _to_enroll(self, connect: Connect, credential: Credential, authority: Authority) -> Decision:
        if not may_name(authority, connect.client_id):
            return Denial("authority-not-its-device", f"its authority may not name {connect.client_id[:64]!r}")
        return enrolling(connect, credential)

    # --- what they have in common -----------------------------------------------------------------------------------

    def _as_device(self, connect: Connect, credential: Credential, authority: Authority | None = None) -> Decision:
        """Admit a device whose credential is good, if it may come in at all, under its own name."""
        device_id = credential.device_id
        assert device_id is not None
        known = self._roster.devices.get(device_id)
        if known is None:
            return Denial("unknown-device", f"no device {device_id!r} is registered")
        if known.lifecycle in (Lifecycle.SUSPENDED, Lifecycle.RETIRED):
            return Denial(f"device-{known.lifecycle}", f"the device is {known.lifecycle}")
        if known.tenant != credential.tenant:
            return Denial("wrong-tenant", "the credential is of another tenant than the device")
        if authority is not None and (
            authority.tenant not in (None, known.tenant) or not may_name(authority, device_id)
        ):
            return Denial("authority-not-its-device", f"its authority may not name {device_id!r}")
        if connect.client_id not in ("", device_id):
            return Denial(
                "client-id-mismatch",
                f"the client id is {connect.client_id[:64]!r}, the credential {device_id!r}'s",
                reasons.CLIENT_IDENTIFIER_NOT_VALID,
            )
        rights = DeviceRights(self._roster, device_id, self._may_answer)
        return Grant(f"device:{device_id}", rights, credential=credential, tenant=known.tenant)


def _denial(decision: Decision) -> Denial | None:
    return decision if isinstance(decision, Denial) else None


def may_name(authority: Authority, device_id: str) -> bool:
    """Whether an authority's terms let it name a device."""
    patterns = authority.terms.ids
    return not patterns or any(fnmatchcase(device_id, each) for each in patterns)


def enrolling(connect: Connect, credential: Credential) -> Decision:
    """Admit who may only ask for an identity: under the id that he asks for."""
    try:
        parse_device_id(connect.client_id)
    except MalformedError as error:
        return Denial("client-id-mismatch", str(error), reasons.CLIENT_IDENTIFIER_NOT_VALID)
    if credential.device_id not in (None, connect.client_id):
        return Denial(
            "client-id-mismatch",
            f"the client id is {connect.client_id[:64]!r}, the claim is for {credential.device_id!r}",
            reasons.CLIENT_IDENTIFIER_NOT_VALID,
        )
    identity = f"{credential.door}:{credential.name}"
    return Grant(identity, EnrollmentRights(connect.client_id), credential=credential, tenant=credential.tenant)
