"""Enrollment: requests come in by any road, and leave with a certificate or a refusal; audited either way.

`admission` decides; this room knows the facts, and does what follows: binds the claim, lets the device land, issues.
Every step may be the last before a power cut, and the same request completes what it began.
"""

import datetime as dt
import threading
from collections.abc import Callable
from time import time_ns
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest
from godwit.contract.errors import MalformedError, RejectedError, UnavailableError
from godwit.contract.ids import DeviceId, TenantId, parse_device_id
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.refusals import Refusals
from godwit.server.accounts.throttle import place_of
from godwit.server.identity import rows
from godwit.server.identity.admission import CLAIMING, RENEWING, Admitted, Facts, Refused, decide
from godwit.server.identity.authorities import Authorities
from godwit.server.identity.claims import Claims
from godwit.server.identity.grounds import check_trust, is_over
from godwit.server.identity.issuance import Issuance, device_uri
from godwit.server.identity.message_keys import GrantKeys
from godwit.server.identity.model import (
    Authority,
    AuthorityKind,
    Certificate,
    CertificateState,
    Change,
    Claim,
    ClaimKind,
    ClaimState,
    Credential,
    Door,
    Landing,
    Source,
)
from godwit.server.identity.news import News
from godwit.server.identity.requests import check_key, check_wishes, key_fingerprint, read_request
from godwit.server.identity.revocation import Revocation
from godwit.server.identity.rules import Rules, landing_of
from godwit.server.identity.throttle import Throttle
from godwit.server.identity.vouching import check_voucher, describe_certificate, issuer_of, read_certificate
from godwit.server.registry.model import DEFAULT_TYPE, Device
from godwit.server.registry.service import Registry
from godwit.server.storage import identity_tables as t
from godwit.server.storage.audit import record
from godwit.server.storage.database import Database

_SOURCES: Final = {
    Door.CERTIFICATE: Source.RENEWAL, Door.TOKEN: Source.RENEWAL, Door.JWT: Source.RENEWAL, Door.CLAIM: Source.CLAIM,
    Door.FACTORY: Source.FACTORY, Door.GRANT: Source.GRANT, Door.ENDED: Source.RENEWAL,
}  # fmt: skip
_ROADS: Final = (Source.EST, Source.SCEP)
"""Roads with a name of their own; of the others the credential says more."""
_TOO_MANY: Final = "too many refused attempts from this address"
_VOUCHING: Final = (AuthorityKind.CUSTOMER, AuthorityKind.FACTORY)


class _Asker(msgspec.Struct, frozen=True):
    """Who asks by which road, and how the audit log calls it."""

    by: Credential | None
    source: Source
    name: str
    address: str

    @property
    def tenant(self) -> str:
        """Whose log it is."""
        return "" if self.by is None else self.by.tenant


KeyRegistrar = Callable[[DeviceId, TenantId, EnrollmentRequest, str, str], GrantKeys]
"""Keeps the keys that came with a request (of whom, from where), and returns the platform's own for messages."""


class Enrollment:
    """Implements `Enroller`. Thread-safe; blocks."""

    def __init__(
        self,
        *,
        database: Database,
        registry: Registry,
        authorities: Authorities,
        issuance: Issuance,
        revocation: Revocation,
        news: News,
        refusals: Refusals,
    ) -> None:
        """`refusals` writes down who asks too much: at once, then once a minute how often."""
        self._database, self._registry, self._authorities = database, registry, authorities
        self._issuance, self._revocation, self._news = issuance, revocation, news
        self.claims, self.rules = Claims(database, news), Rules(database)
        self.keep_keys: KeyRegistrar | None = None
        self.on_configured: Callable[[DeviceId, dict[str, Any]], None] | None = None
        """Told of a device's first configuration, once it is kept; empty: there is none any more."""
        self._one_at_a_time = threading.Lock()
        # A device may renew ten times at once, and a fleet may come in through one address; guesses may not.
        self._per_device, self._failures = Throttle(0.5, 20), Throttle(0.5, 60)
        self.refusals = refusals

    # --- who asks -------------------------------------------------------------------------------------------------

    def credential_of_claim(self, token: str) -> Credential | None:
        """Return what a claim token stands for, or None: unknown, spent, revoked or expired."""
        claim = self.claims.of_token(token)
        if claim is None or claim.state not in (ClaimState.OPEN, ClaimState.BOUND) or 0 < claim.expires <= time_ns():
            return None
        is_shared = claim.kind is ClaimKind.FLEET
        return Credential(_door_of(claim), claim.claim_id, claim.tenant, ends=claim.expires, is_shared=is_shared)

    def _credential(self, token: str) -> Credential:
        """Return what the token in a request stands for, also where it opens nothing: its refusal says why."""
        claim = self.claims.of_token(token)
        if claim is None:
            return Credential(Door.CLAIM, "", TenantId(""))
        return Credential(_door_of(claim), claim.claim_id, claim.tenant)

    def take_in(self, der: bytes, *, address: str = "") -> Credential:
        """Return whom a certificate of a trusted authority lets in that is not among those we know.

        A factory certificate opens enrollment (`Door.FACTORY`). One of a customer's authority is its device; where the
        authority is `just_in_time`, an unknown device is taken in. Raises RejectedError or MalformedError, audited.
        """
        now = time_ns()
        try:
            return self._take_in(der, address, now)
        except (RejectedError, MalformedError) as error:
            # whether a certificate is good is looked at all the same: others behind its address may show bad ones
            asker = _Asker(None, Source.JUST_IN_TIME, "unknown", address)
            if not self._failures.take(f"certificate {place_of(address)}", now) and address:
                self._limit(asker, "certificate", _TOO_MANY)
                raise RejectedError(_TOO_MANY, code="rate-limited") from error
            self._refused(asker, "certificate", error.code, str(error))
            raise

    def _take_in(self, der: bytes, address: str, now: int) -> Credential:
        certificate = read_certificate(der)
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        authority = issuer_of(certificate, self.vouching())
        if authority is None or authority.tenant is None:
            raise RejectedError("nobody whom we trust issued this certificate", code="authority-unknown")
        device_id = check_voucher(certificate, authority, dt.datetime.now(dt.UTC))
        row = describe_certificate(certificate, authority, device_id, Source.JUST_IN_TIME, now)
        if authority.kind is AuthorityKind.FACTORY and not authority.terms.just_in_time:
            return Credential(
                Door.FACTORY, fingerprint, authority.tenant, None, row.not_after, authority.fingerprint, device_id
            )
        with self._one_at_a_time:
            known = self._issuance.find(fingerprint)
            if known is None:
                self._admit_voucher(row, authority, address)
            elif known.state is CertificateState.REVOKED:
                raise RejectedError("this certificate was revoked", code="certificate-revoked")
        self._revocation.seen(fingerprint)
        return Credential(Door.CERTIFICATE, fingerprint, authority.tenant, device_id, row.not_after)

    def _admit_voucher(self, certificate: Certificate, authority: Authority, address: str) -> None:
        """Keep a certificate of a customer's or factory's authority; its device lands if it is new."""
        by = Credential(
            Door.FACTORY, certificate.fingerprint, certificate.tenant, authority=authority.fingerprint,
            common_name=certificate.device_id,
        )  # fmt: skip
        facts = self._facts(certificate.device_id, certificate.key_fingerprint, by)
        if facts.device is None and not authority.terms.just_in_time:
            raise RejectedError("this device is not in the registry", code="unknown-device")
        if authority.kind is AuthorityKind.CUSTOMER:  # it vouches for its devices, whatever they had before
            facts = msgspec.structs.replace(facts, certificates=(), has_other_credentials=False)
        decision = decide(certificate.device_id, certificate.key_fingerprint, by, facts, time_ns())
        if isinstance(decision, Refused):
            raise RejectedError(decision.message, code=decision.code)
        self.check_serial(certificate)
        if decision.is_landing:
            new = Device(certificate.device_id, certificate.tenant)
            self._land(new, Source.JUST_IN_TIME, authority.terms.landing, f"authority {authority.name}")
        self.keep(certificate, f"authority {authority.name}", address)

    def keep(self, certificate: Certificate, who: str, address: str) -> None:
        """Keep what another authority issued; again is no error.

        Raises RejectedError (`serial-shared`, `authority-not-trusted`).
        """
        with self._database.write() as connection:
            if _is_kept(connection, certificate):
                return
            connection.execute(t.certificates.insert(), rows.row_of_certificate(certificate))
            check_trust(connection, certificate.authority, certificate.device_id)  # its terms, as they are by now
            record(
                connection, who, "certificate.register", certificate.device_id, tenant=certificate.tenant,
                address=address,
                after={"fingerprint": certificate.fingerprint, "source": str(certificate.source),
                       "authority": certificate.authority},
            )  # fmt: skip
        self._news.tell(certificate)

    def check_serial(self, certificate: Certificate) -> None:
        """See that another's certificate can be kept. Raises RejectedError (`serial-shared`)."""
        with self._database.read() as connection:
            _is_kept(connection, certificate)

    def vouching(self) -> list[Authority]:
        """Return the authorities that vouch for devices: of customers and factories."""
        return [each for each in self._authorities.all() if each.kind in _VOUCHING]

    # --- what is asked --------------------------------------------------------------------------------------------

    def enroll(
        self, asked: EnrollmentRequest, by: Credential | None, source: Source, *, address: str = ""
    ) -> EnrollmentGrant:
        """Return the grant, or a refusal with its code; audited either way. Never raises for what a client may do."""
        now = time_ns()
        renews = by is not None and by.door in RENEWING
        if by is None and asked.claim is not None:
            by = self._credential(asked.claim)
        # Who shows nothing that we know counts with all others at his address; who shows something, for himself. To
        # find that out was cheap, and the guesses of others behind the same address are not his.
        failing = f"{by.name if by is not None else ''} {place_of(address)}"
        if address and not renews and not self._failures.is_open(failing, now):
            return self._slowed(asked, _Asker(by, source, "unknown", address), _TOO_MANY)
        if by is not None and source not in _ROADS:
            source = _SOURCES.get(by.door, source)
        asker = _Asker(by, source, _name(by), address)
        # who renews counts for himself, whatever ids he says, and whoever says his
        counted = f"* {by.device_id}" if renews and by is not None else f"{asker.tenant} {asked.device_id[:64]}"
        if not self._per_device.take(counted, now):
            return self._slowed(asked, asker, "too many requests for this device")
        try:
            device_id = parse_device_id(asked.device_id)
            request = read_request(asked.request)
            check_wishes(request, device_id, device_uri(asker.tenant, device_id))
            key = key_fingerprint(check_key(request.public_key()))
            if self._revocation.has_seen:  # who has just connected has an identity
                self._revocation.flush()
            with self._one_at_a_time:
                decision = decide(device_id, key, by, self._facts(device_id, key, by), now)
                if isinstance(decision, Admitted):
                    assert by is not None
                    return self._grant(asked, request, by, decision, asker)
            code, message, detail = decision.code, decision.message, decision.detail
        except (RejectedError, MalformedError) as error:
            code, message, detail = error.code, str(error), ""
        except UnavailableError as error:
            return _refusal(asked, error.code, "the platform cannot enroll just now: ask again")
        self._failures.take(failing, now)
        self._refused(asker, asked.device_id, code, detail)
        return _refusal(asked, code, message)

    def _facts(self, device_id: DeviceId, key: str, by: Credential | None) -> Facts:
        certificates, tokens, keys = t.certificates.c, t.device_tokens.c, t.device_keys.c
        counting = (
            sa.select(certificates.device_id)
            .where(
                certificates.key_fingerprint == key, certificates.device_id != device_id,
                certificates.state != str(CertificateState.REVOKED), certificates.not_after > time_ns(),
            )
            .limit(1)
        )  # fmt: skip
        held = sa.select(tokens.token_id).where(tokens.device_id == device_id, tokens.revoked == 0).limit(1)
        jwt = sa.select(keys.key_id).where(keys.device_id == device_id, keys.purpose == "jwt", keys.retired == 0)
        with self._database.read() as connection:
            is_key_of_another = connection.execute(counting).first() is not None
            has_others = any(connection.execute(each).first() is not None for each in (held, jwt.limit(1)))
        claim, authority = None, None
        if by is not None and by.door in CLAIMING:
            claim = self.claims.find(by.name)
        elif by is not None and by.door is Door.FACTORY:
            authority = next((each for each in self.vouching() if each.fingerprint == by.authority), None)
        return Facts(
            self.device(device_id),
            tuple(self._issuance.of_device(device_id)),
            has_others,
            is_key_of_another,
            claim,
            authority,
            by is not None and by.door in RENEWING and self._is_over(by),
        )

    def _is_over(self, by: Credential) -> bool:
        with self._database.read() as connection:
            return is_over(connection, by)

    def device(self, device_id: DeviceId) -> Device | None:
        """Return a device of whatever tenant."""
        try:
            return self._registry.device(Principal("godwit"), device_id)
        except RejectedError:
            return None

    def _grant(
        self,
        asked: EnrollmentRequest,
        request: x509.CertificateSigningRequest,
        by: Credential,
        decision: Admitted,
        asker: _Asker,
    ) -> EnrollmentGrant:
        device_id, key = DeviceId(asked.device_id), key_fingerprint(check_key(request.public_key()))
        claim = self.claims.find(by.name) if by.door in CLAIMING else None
        if claim is not None and decision.again is None and not self.claims.use(claim, key):
            raise RejectedError("this claim was used a moment ago", code="claim-spent")
        if decision.is_landing:
            own = claim.landing if claim is not None else self.landing_of(by.authority)
            self._land(Device(device_id, by.tenant), asker.source, own, asker.name)
        certificate = decision.again
        if certificate is None:
            certificate = self._issuance.issue(
                request, device_id, by.tenant, asker.source, asker.name, trusts=asked.trusts, by=by
            ).certificate
        keys = None  # after the certificate: who gets none any more leaves none
        if self.keep_keys is not None:
            keys = self.keep_keys(device_id, by.tenant, asked, asker.name, asker.address)
        with self._database.write() as connection:
            record(
                connection, asker.name, "enrollment.grant", device_id, tenant=by.tenant, address=asker.address,
                after={
                    "fingerprint": certificate.fingerprint, "source": str(asker.source),
                    "again": decision.again is not None, "replaces": decision.is_replacing, "by": str(by.door),
                },
            )  # fmt: skip
        return EnrollmentGrant(
            device_id,
            certificate.certificate,
            list(self._authorities.chain_of(certificate.authority)),
            self._authorities.anchors(),
            self.configuration(device_id),
            None if keys is None else keys.agree_key,
            time_ns(),
            sign_key=None if keys is None else keys.sign_key,
            taken=[] if keys is None else list(keys.taken),
        )

    def landing_of(self, authority: str) -> Landing:
        """Return where the devices of an authority land, as far as it says so itself."""
        found = next((each for each in self.vouching() if each.fingerprint == authority), None)
        return Landing() if found is None else found.terms.landing

    def _land(self, device: Device, source: Source, own: Landing, who: str) -> None:
        """Let a new device land: in the registry, its groups, and with its first configuration."""
        landing = landing_of(self.rules.of_tenant(device.tenant), device.device_id, source, own)
        device = msgspec.structs.replace(device, device_type=landing.device_type or DEFAULT_TYPE, tags=landing.tags)
        self._registry.take_in(Principal(who, (device.tenant,)), device, landing.groups)
        self.configure(device.device_id, landing.configuration)

    def configure(self, device_id: DeviceId, configuration: dict[str, Any]) -> None:
        """Keep the first configuration of a device; an empty one: it has none."""
        where = t.device_configurations.c.device_id == device_id
        with self._database.write() as connection:
            had_one = connection.execute(t.device_configurations.delete().where(where)).rowcount > 0
            if configuration:
                connection.execute(
                    t.device_configurations.insert(),
                    {"device_id": device_id, "document": configuration, "created": time_ns()},
                )
        if self.on_configured is not None and (configuration or had_one):
            self.on_configured(device_id, configuration)

    def configuration(self, device_id: DeviceId) -> dict[str, Any] | None:
        """Return a device's first configuration."""
        c = t.device_configurations.c
        with self._database.read() as connection:
            found: dict[str, Any] | None = connection.execute(
                sa.select(c.document).where(c.device_id == device_id)
            ).scalar_one_or_none()
        return found

    def _slowed(self, asked: EnrollmentRequest, asker: _Asker, why: str) -> EnrollmentGrant:
        known = asker.by.device_id if asker.by is not None else None  # he may say another name each time
        self._limit(asker, known or asked.device_id, why)
        return _refusal(asked, "rate-limited", f"{why}: wait a minute")

    def _limit(self, asker: _Asker, about: str, why: str) -> None:
        self.refusals.note(
            asker.name, "enrollment.refuse", about, code="rate-limited", address=asker.address,
            tenant=asker.tenant, detail=why,
        )  # fmt: skip

    def _refused(self, asker: _Asker, about: str, code: str, detail: str) -> None:
        with self._database.write() as connection:
            record(
                connection, asker.name, "enrollment.refuse", about, tenant=asker.tenant,
                address=asker.address, after={"code": code, "detail": detail[:512], "source": str(asker.source)},
            )  # fmt: skip

    # --- what follows ---------------------------------------------------------------------------------------------

    def follow(self, change: Change) -> None:
        """Follow what is told of identity: a certificate is active from its first use on."""
        if isinstance(change, Certificate) and change.state is CertificateState.ACTIVE:
            self.on_first_use(change)

    def on_first_use(self, certificate: Certificate) -> None:
        """Follow the first connection with a certificate: its claim is spent, and what it replaces is out.

        What a device renewed is only superseded, and counts until its own end (see `Revocation.flush`). What a claim
        for this very id replaced is revoked: the old hardware is out. Requests whose answer was lost on the way leave
        certificates behind, which nobody has used: they are revoked too.
        """
        claim = self.claims.spend(certificate)
        is_replaced = claim is not None and claim.device_id == certificate.device_id
        with self._database.alone():  # the old hardware renews nothing between the look and the last revocation
            replacing = self.claims.keys_for(certificate.device_id)
            for each in self._issuance.of_device(certificate.device_id):
                if each.fingerprint == certificate.fingerprint or each.state is CertificateState.REVOKED:
                    continue
                if is_replaced or (each.key_fingerprint not in replacing and _is_lost(each, certificate)):
                    self._revocation.revoke(each.fingerprint, "superseded", "godwit")


def _is_kept(connection: sa.Connection, certificate: Certificate) -> bool:
    c = t.certificates.c
    same = sa.and_(c.authority == certificate.authority, c.serial == certificate.serial)
    known = connection.execute(sa.select(c.fingerprint).where(same)).scalar_one_or_none()
    if known not in (None, certificate.fingerprint):
        raise RejectedError(
            "its authority has given this serial number to another certificate: lists could not tell them apart",
            code="serial-shared",
        )
    return known is not None


def _door_of(claim: Claim) -> Door:
    return Door.GRANT if claim.kind is ClaimKind.GRANT else Door.CLAIM


def _is_lost(each: Certificate, used: Certificate) -> bool:
    """Whether nobody will come with a certificate any more, now that `used` came: both were answers to one wish.

    Of several that were asked for by claim, the one that connects first is the device's. What an operator or a
    customer's authority gave may be still on its way.
    """
    if each.state is not CertificateState.PENDING or each.source not in (*_SOURCES.values(), *_ROADS):
        return False
    is_first = used.source is not Source.RENEWAL and each.source is not Source.RENEWAL
    return is_first or each.created < used.created


def _name(by: Credential | None) -> str:
    """Return who asks, for the audit log. Tokens do not stand there."""
    if by is None or not by.name:
        return "unknown"
    return str(by.device_id) if by.door in RENEWING else f"{by.door} {by.name}"


def _refusal(asked: EnrollmentRequest, code: str, message: str) -> EnrollmentGrant:
    return EnrollmentGrant(asked.device_id[:64], time=time_ns(), code=code, message=message)
