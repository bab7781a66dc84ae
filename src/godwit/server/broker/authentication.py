"""Who a connection is: by certificate, token, signed claim or password. Decided at every CONNECT, resumed TLS or not.

OpenSSL has verified that the client has its certificate's key, and that somebody whom we trust issued it. Everything
else is looked up here, in the roster: the certificate by its fingerprint, its dates, its authority and whose that is,
the device and its life. What would have to wait for the database is handed back as a question, to be asked in a
thread.
"""

import hmac
from collections.abc import Callable
from hashlib import sha256
from time import time_ns
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from godwit.contract.credentials import RENEWAL_USER
from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId, TenantId, parse_device_id
from godwit.mqtt import reasons
from godwit.mqtt.packets import Connect
from godwit.server.accounts.api_tokens import PREFIX as API_PREFIX
from godwit.server.accounts.first_token import PREFIX as FIRST_PREFIX
from godwit.server.accounts.principal import Principal
from godwit.server.accounts.room import Known
from godwit.server.accounts.throttle import place_of
from godwit.server.broker.guard import SHOWN
from godwit.server.broker.refusals import CERTIFICATE_EXPIRED, Denial
from godwit.server.broker.rights import (
    INSIDE,
    LOOPBACK,
    PUBLISH,
    SUBSCRIBE,
    ApplicationRights,
    ApplicationTerms,
    Decision,
    DeviceRights,
    EnrollmentRights,
    Grant,
    LocalRights,
    Question,
    Rights,
)
from godwit.server.broker.switches import Switches
from godwit.server.identity.claims import PREFIX as CLAIM_PREFIX
from godwit.server.identity.device_keys import check_jwt
from godwit.server.identity.device_tokens import PREFIX as DEVICE_PREFIX
from godwit.server.identity.grace import is_in_grace, renewable_until
from godwit.server.identity.model import (
    Authority,
    AuthorityKind,
    AuthorityState,
    CertificateState,
    Credential,
    DeviceToken,
    Door,
)
from godwit.server.identity.roster import KnownAuthority, KnownCertificate, Roster
from godwit.server.identity.throttle import Throttle
from godwit.server.registry.model import Lifecycle

NO_AUTHORITY: Final = Denial("authority-unknown", "nobody who is trusted here issued the certificate")


OURS: Final = (AuthorityKind.ROOT, AuthorityKind.ISSUING)
GUESSES_PER_S: Final = 0.2
GUESSES_AT_ONCE: Final = 20
"""Wrong passwords of one address, before none of its passwords is looked at. Tokens are looked at all the same."""
SECRETS: Final = (CLAIM_PREFIX, DEVICE_PREFIX, API_PREFIX, FIRST_PREFIX)
"""How secrets of our own making begin."""


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


class Desk(msgspec.Struct, frozen=True):
    """What is asked in threads, since it blocks."""

    credential_of_claim: Callable[[str], Credential | None]
    """Returns what a claim token stands for."""
    take_in: Callable[..., Credential]
    """Returns whom a certificate (DER) lets in that another authority issued, and nobody knows yet; `address`."""
    known: Callable[..., Known | None]
    """Returns whose API token it is; `address`."""


class FleetAuthenticator:
    """Knows the fleet."""

    def __init__(
        self,
        roster: Roster,
        may_answer: Callable[[str, str], bool],
        pair: PasswordAuthenticator | None = None,
        switches: Switches | None = None,
        desk: Desk | None = None,
        *,
        seen: Callable[[str], None] = lambda _fingerprint: None,
        find_token: Callable[[str], DeviceToken | None] = lambda _secret: None,
        now_ns: Callable[[], int] = time_ns,
    ) -> None:
        self._roster, self._may_answer = roster, may_answer
        self._pair = pair or PasswordAuthenticator()
        self._switches = switches or Switches()
        self._desk = desk
        self._failures = Throttle(GUESSES_PER_S, GUESSES_AT_ONCE)
        self._find_token = find_token
        self._seen = seen
        """Told of a certificate that is used for the first time."""
        self._now_ns = now_ns

    def authenticate(
        self, listener: str, connect: Connect, certificate: bytes | None, address: str
    ) -> Decision | Question:
        """See `Authenticator`."""
        if listener in LOOPBACK:
            return self._on_loopback(connect)
        if listener == INSIDE:
            return self._pair.authenticate(listener, connect, certificate, address)
        if certificate is not None and self._switches.certificates:
            return self._by_certificate(connect, certificate, address)
        if connect.password is None:
            return Denial(
                "credentials-needed", "this listener asks for a certificate, a token, or a user name and a password"
            )
        return self._by_password(connect, address)

    def judge_name(self, connect: Connect, common_name: str) -> Decision:
        """Judge a certificate that a foreign broker has verified, of which it says the name alone."""
        known = self._roster.devices.get(common_name)
        tenant = TenantId(known.tenant if known is not None else "")
        return self._as_device(connect, Credential(Door.CERTIFICATE, common_name, tenant, DeviceId(common_name)))

    def _by_password(self, connect: Connect, address: str) -> Decision | Question:
        """Judge a password. What cannot be guessed is looked at whoever asks, and however often he has been wrong."""
        assert connect.password is not None
        try:
            password = connect.password.decode("ascii")
        except UnicodeDecodeError:
            password = ""
        own = self._by_device_token(connect, password) or self._by_jwt(connect, password)
        if own is not None:
            return own
        if password.startswith(SECRETS):
            # 256 random bits cannot be guessed, and looking a hash up is cheap: others' wrong ones slow no good one
            return self._wrong(address, "token") if self._desk is None else self._ask_desk(connect, password, address)
        if self._failures.is_open(_bucket("password", address), self._now_ns()) and self._pair.is_pair(connect):
            return Grant(identity=connect.username)
        return self._wrong(address, "password")

    def _by_device_token(self, connect: Connect, password: str) -> Decision | None:
        """Judge a device token; None: it is none that counts, or these are switched off."""
        token = self._find_token(password) if self._switches.tokens else None
        if token is None:
            return None
        if connect.username != token.device_id:
            return Denial("wrong-device", "the user name is the id of the device that the token is for")
        return self._as_device(
            connect, Credential(Door.TOKEN, token.token_id, token.tenant, token.device_id, token.expires)
        )

    def _by_jwt(self, connect: Connect, password: str) -> Decision | None:
        """Judge what a device has signed; None: it is nothing of the kind."""
        if not self._switches.jwt or password.count(".") != 2 or not password.startswith("eyJ"):
            return None
        device_id = connect.username or connect.client_id
        try:
            keys, wanted = self._roster.keys(device_id), self._switches.audiences
            signed = check_jwt(keys, device_id, password, self._now_ns(), wanted)
        except RejectedError as error:
            return Denial(error.code, str(error))
        key = signed.key
        return self._as_device(connect, Credential(Door.JWT, key.key_id, key.tenant, key.device_id, signed.ends))

    def _wrong(self, address: str, kind: str) -> Denial:
        """Refuse a guess. Each kind is counted by itself: a script with an old token slows nobody's password."""
        if self._failures.take(_bucket(kind, address), self._now_ns()):
            return Denial("credentials-wrong", "user name, password or token is wrong", is_guess=True)
        return Denial(
            "too-many-failures", f"too many wrong {kind}s from this address: wait a minute",
            reasons.CONNECTION_RATE_EXCEEDED,
        )  # fmt: skip

    def _ask_desk(self, connect: Connect, password: str, address: str) -> Question:
        desk = self._desk
        assert desk is not None

        def ask() -> Decision:
            credential = desk.credential_of_claim(password)
            if credential is not None:
                return enrolling(connect, credential)
            return self._as_application(connect, password, address) or self._wrong(address, "token")

        return ask

    def _as_application(self, connect: Connect, token: str, address: str) -> Decision | None:
        desk = self._desk
        assert desk is not None
        known = desk.known(token, address=address)
        if known is None or known.session or known.must_change:
            return None  # a browser's session is no token
        terms = terms_of(known.principal)
        if terms.hears == () and terms.speaks == ():
            return Denial("scope-missing", f"the token has neither the scope {SUBSCRIBE} nor {PUBLISH}")
        if connect.client_id in self._roster.devices:
            return Denial(
                "client-id-in-use", "this is the id of a device", reasons.CLIENT_IDENTIFIER_NOT_VALID
            )  # fmt: skip

        def still() -> Denial | None:
            again = desk.known(token, address=address)
            if again is None:
                return Denial("token-revoked", "the token has ended or is revoked")
            is_same = terms_of(again.principal) == terms
            return None if is_same else Denial("rights-changed", "the token's rights have changed: connect again")

        name = known.principal.name
        tenant = known.principal.tenants[0] if known.principal.tenants else TenantId("")
        return Grant(
            f"app:{name}",
            ApplicationRights(self._roster, connect.client_id, terms),
            credential=Credential(Door.APPLICATION, known.token_id or name, tenant, ends=known.until),
            tenant=tenant,
            terms=msgspec.json.encode(terms).decode(),
            still=still,
        )

    def rights_of(self, identity: str, terms: str, client_id: str) -> Rights | None:
        """See `Authenticator`."""
        kind, _, name = identity.partition(":")
        if kind == "device":
            return DeviceRights(self._roster, name, self._may_answer)
        if kind == "app":
            return ApplicationRights(self._roster, client_id, msgspec.json.decode(terms or "{}", type=ApplicationTerms))
        if kind in (Door.CLAIM, Door.FACTORY):
            return EnrollmentRights(client_id)
        if kind == Door.ENDED:
            return EnrollmentRights(terms, CERTIFICATE_EXPIRED)
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
        connect = Connect(credential.device_id or client_id)  # its client id may be one that it was assigned
        if credential.door is Door.ENDED:
            connect.username = RENEWAL_USER
        if credential.door in SHOWN and certificate is not None:
            return _denial(self._by_certificate(connect, certificate, ""))
        return self._taken_away(credential) or self._denied_device(credential)

    def judge_absent(self, credential: Credential, client_id: str) -> Denial | None:
        """See `Judge`."""
        del client_id
        if credential.door in (Door.CERTIFICATE, Door.ENDED):
            known = self._roster.certificate(bytes.fromhex(credential.name))
            authority = self._roster.authorities.get(known.authority) if known is not None else None
            if known is None or authority is None or authority.row.state is AuthorityState.RETIRED:
                return NO_AUTHORITY
            if known.state is CertificateState.REVOKED:
                return Denial("certificate-revoked", "the certificate is revoked")
        return self._taken_away(credential) or self._denied_device(credential)

    def _denied_device(self, credential: Credential) -> Denial | None:
        if credential.device_id is None:
            return None
        return _denial(self._as_device(Connect(credential.device_id), credential))

    def _taken_away(self, credential: Credential) -> Denial | None:
        """Say whether a token is revoked, or the key of a signed one retired."""
        if credential.door is Door.TOKEN and not self._roster.has_token(credential.name):
            return Denial("token-revoked", "the token is revoked")
        if credential.door is Door.JWT and credential.device_id is not None:
            keys = self._roster.keys(credential.device_id)
            if all(each.key_id != credential.name for each in keys):
                return Denial("key-retired", "the key that signed its token is retired")
        return None

    def judge_stranger(self, client_id: str) -> Denial | None:
        """See `Judge`."""
        return _denial(self._on_loopback(Connect(client_id)))

    # --- certificates -----------------------------------------------------------------------------------------------

    def _by_certificate(self, connect: Connect, der: bytes, address: str) -> Decision | Question:
        fingerprint = sha256(der).digest()
        known = self._roster.certificate(fingerprint)
        if known is None:
            return self._by_unknown_certificate(connect, der, address)
        authority = self._roster.authorities.get(known.authority)
        if known.state is CertificateState.REVOKED:
            return Denial("certificate-revoked", f"the certificate is revoked ({known.reason or 'unspecified'})")
        denied = self._unfit_authority(authority)
        if denied is None and authority is not None and self._is_for_grace(connect, known, authority.row):
            return self._in_grace(connect, known, fingerprint.hex(), authority.row)
        denied = self._out_of_time(known.not_before, known.not_after) or denied
        if denied is not None:
            return denied
        credential = Credential(
            Door.CERTIFICATE, fingerprint.hex(), TenantId(known.tenant), DeviceId(known.device_id), known.not_after
        )
        decision = self._as_device(connect, credential, authority.row if authority is not None else None)
        if known.state is CertificateState.PENDING and isinstance(decision, Grant):
            self._seen(credential.name)
        return decision

    def _is_for_grace(self, connect: Connect, known: KnownCertificate, authority: Authority) -> bool:
        """Whether a client wants nothing but to renew a certificate of ours that has ended, and may."""
        is_asked = connect.username == RENEWAL_USER and authority.kind in OURS
        return is_asked and is_in_grace(known, self._switches.grace_days, self._now_ns())

    def _in_grace(self, connect: Connect, known: KnownCertificate, name: str, authority: Authority) -> Decision:
        """Admit a device whose certificate has ended to its own renewal."""
        device_id, ends = known.device_id, renewable_until(known, self._switches.grace_days)
        credential = Credential(Door.ENDED, name, TenantId(known.tenant), DeviceId(device_id), ends)
        decision = self._as_device(connect, credential, authority)
        if isinstance(decision, Denial):
            return decision
        rights = EnrollmentRights(device_id, CERTIFICATE_EXPIRED)
        return msgspec.structs.replace(decision, identity=f"{Door.ENDED}:{name}", rights=rights, terms=device_id)

    def _out_of_time(self, not_before: int, not_after: int) -> Denial | None:
        now = self._now_ns()
        if now < not_before:
            return Denial("certificate-not-yet-valid", "the certificate is not valid yet: is the device's clock right?")
        return Denial(CERTIFICATE_EXPIRED, "the certificate has expired") if now >= not_after else None

    def _unfit_authority(self, authority: KnownAuthority | None) -> Denial | None:
        if authority is None or authority.row.state is AuthorityState.RETIRED:
            return NO_AUTHORITY
        if self._now_ns() >= authority.row.not_after:
            return Denial("authority-expired", "the authority that issued the certificate has expired")
        return None

    def _by_unknown_certificate(self, connect: Connect, der: bytes, address: str) -> Decision | Question:
        """Judge a certificate that the registry does not have: only a customer's or a factory's authority vouches."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            authority = self._issuer(certificate)
        except (ValueError, UnsupportedAlgorithm) as error:
            return Denial("certificate-malformed", f"the certificate cannot be read: {error}")
        denied = self._unfit_authority(authority)
        if denied is not None or authority is None:
            return denied or NO_AUTHORITY
        if authority.row.kind in OURS:
            return Denial("certificate-unknown", "the registry does not have this certificate")
        desk = self._desk
        if desk is None:
            return NO_AUTHORITY

        def ask() -> Decision:
            try:
                credential = desk.take_in(der, address=address)
            except (RejectedError, MalformedError) as error:
                return Denial(error.code, str(error))
            if credential.device_id is None:
                return enrolling(connect, credential)
            return self._as_device(connect, credential, authority.row)

        return ask

    def _issuer(self, certificate: x509.Certificate) -> KnownAuthority | None:
        for each in self._roster.issuers(certificate.issuer):
            try:
                certificate.verify_directly_issued_by(each.certificate)
            except (InvalidSignature, ValueError, TypeError):
                continue
            return each
        return None

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
        if authority is not None and authority.tenant not in (None, known.tenant):
            # which ids it may name was asked when the certificate came into the registry: terms that were narrowed
            # since lock out nobody, the audit names who is outside of them
            return Denial("authority-not-its-device", f"its authority may not name {device_id!r}")
        if connect.client_id not in ("", device_id):
            return Denial(
                "client-id-mismatch",
                f"the client id is {connect.client_id[:64]!r}, the credential {device_id!r}'s",
                reasons.CLIENT_IDENTIFIER_NOT_VALID,
            )
        rights = DeviceRights(self._roster, device_id, self._may_answer)
        return Grant(f"device:{device_id}", rights, credential=credential, tenant=known.tenant, terms=known.tenant)


def terms_of(who: Principal) -> ApplicationTerms:
    """Return what a program may do in whose name: its scopes, within its roles."""
    may_hear, may_speak = (not who.scopes or each in who.scopes for each in (SUBSCRIBE, PUBLISH))
    may_speak = may_speak and who.is_at_least("operator")
    return ApplicationTerms(who.tenants if may_hear else (), who.limited_to("operator").tenants if may_speak else ())


def _bucket(kind: str, address: str) -> str:
    return f"{kind} {place_of(address)}"


def _denial(decision: Decision | Question) -> Denial | None:
    return decision if isinstance(decision, Denial) else None


def enrolling(connect: Connect, credential: Credential) -> Decision:
    """Admit who may only ask for an identity: under the id that he asks for."""
    try:
        parse_device_id(connect.client_id)
    except MalformedError as error:
        return Denial("client-id-mismatch", str(error), reasons.CLIENT_IDENTIFIER_NOT_VALID)
    if credential.common_name and credential.common_name != connect.client_id:
        return Denial(
            "client-id-mismatch",
            f"the client id is {connect.client_id[:64]!r}, the certificate {credential.common_name!r}'s",
            reasons.CLIENT_IDENTIFIER_NOT_VALID,
        )
    identity = f"{credential.door}:{credential.name}"
    return Grant(identity, EnrollmentRights(connect.client_id), credential=credential, tenant=credential.tenant)
