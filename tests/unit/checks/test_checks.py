"""Does each check of the security audit find what is planted, and nothing where nothing is?"""

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from godwit.contract.ids import DeviceId, TenantId
from godwit.server.accounts.model import ApiToken
from godwit.server.checks.audit import AFFECTED_MAX, CHECKS, audit
from godwit.server.checks.certificates import key_facts, weakness
from godwit.server.checks.model import (
    DAY,
    NS,
    Check,
    ClockFact,
    Connected,
    Facts,
    KeyFacts,
    Severity,
    User,
)
from godwit.server.identity.model import (
    Authority,
    AuthorityKind,
    AuthorityState,
    AuthorityTerms,
    Certificate,
    CertificateState,
    Claim,
    ClaimKind,
    ClaimState,
    DeviceKey,
    DeviceToken,
    KeyPurpose,
    Source,
)
from godwit.server.registry.model import Device, Lifecycle
from godwit.server.settings import Settings

NOW = 1_790_000_000 * NS
ACME = TenantId("acme")
GOOD_KEY = KeyFacts("ec", 256, "secp256r1", "sha256")
replace = msgspec.structs.replace


def device(name: str, **more: Any) -> Device:
    return Device(DeviceId(name), ACME, created=NOW - DAY, **more)


def certificate(name: str, mark: str, **more: Any) -> Certificate:
    fields = {
        "state": CertificateState.ACTIVE, "source": Source.CLAIM, "not_before": NOW - 10 * DAY,
        "not_after": NOW + 80 * DAY, "created": NOW - 10 * DAY, "key_fingerprint": f"key-{mark}", "authority": "ours",
    } | more  # fmt: skip
    return Certificate(fingerprint=mark, device_id=DeviceId(name), tenant=ACME, serial=mark, certificate="", **fields)


def authority(mark: str, **more: Any) -> Authority:
    fields = {
        "tenant": None, "kind": AuthorityKind.ISSUING, "state": AuthorityState.ACTIVE, "has_key": True,
        "not_before": NOW - 10 * DAY, "not_after": NOW + 1_000 * DAY, "created": NOW,
    } | more  # fmt: skip
    return Authority(fingerprint=mark, name=mark, certificate="", subject="", key_identifier="", issuer=None, **fields)


def claim(**more: Any) -> Claim:
    fields = {
        "kind": ClaimKind.FLEET, "state": ClaimState.OPEN, "uses": 3, "uses_max": 10, "expires": NOW + DAY,
        "created": NOW - DAY,
    } | more  # fmt: skip
    return Claim("claim-1", ACME, "line 4", device_id=None, key_fingerprint=None, created_by="a", **fields)


def token(**more: Any) -> ApiToken:
    fields = {
        "grants": {"acme": "operator"}, "scopes": ("devices:read",), "created": NOW - DAY, "expires": NOW + DAY,
        "revoked": 0, "last_used": NOW - DAY,
    } | more  # fmt: skip
    return ApiToken(token_id="token-1", name="report", owner="ada", **fields)


def user(**more: Any) -> User:
    fields = {
        "grants": {"acme": "operator"}, "has_password": True, "has_issuer": False, "is_disabled": False,
        "created": NOW - 200 * DAY, "last_sign_in": NOW - DAY,
    } | more  # fmt: skip
    return User("ada", **fields)


def device_token(**more: Any) -> DeviceToken:
    fields = {"created": NOW - DAY, "expires": NOW + DAY, "last_used": NOW} | more
    return DeviceToken("dt-1", DeviceId("pump"), ACME, "", created_by="a", **fields)


def device_key(name: str, mark: str) -> DeviceKey:
    return DeviceKey(mark, DeviceId(name), ACME, KeyPurpose.JWT, "", NOW)


def connected(client: str, credential: str, *, device_id: str = "pump", address: str = "10.0.0.1") -> Connected:
    return Connected(client, device_id, "tls", credential, address)


HEALTHY = Facts(
    now=NOW,
    settings=Settings(local_listener=False, tls_minimum="1.3", tenant_messages_per_s=100),
    tenants={"acme": True, "brook": True},
    devices=[device("pump"), device("fan")],
    authorities=[
        authority("ours"),
        authority("root", kind=AuthorityKind.ROOT, has_key=False),
        authority(
            "factory", kind=AuthorityKind.FACTORY, tenant=ACME, has_key=False,
            terms=AuthorityTerms(ids=("pump-*",), just_in_time=True),
        ),
    ],
    certificates=[certificate("pump", "c1"), certificate("fan", "c2")],
    keys_of={"c1": GOOD_KEY, "c2": GOOD_KEY, "ours": GOOD_KEY, "root": GOOD_KEY, "factory": GOOD_KEY},
    proven=frozenset({"factory"}),
    claims=[claim()],
    device_tokens=[device_token()],
    device_keys=[device_key("pump", "key-c1")],
    users=[user()],
    tokens=[token()],
    connected=[connected("pump", "c1"), connected("fan", "c2", device_id="fan")],
    conflicts={"pump": 1},
    clocks=[ClockFact("pump", 2 * NS, NS)],
    refused={"session.refuse": 3},
)  # fmt: skip
"""A fleet in which nothing is to be found: what each test below changes is what is found."""


def settings(**more: Any) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, settings=replace(facts.settings, **more))


def planted(**more: Any) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, **more)


def certificates(*more: Certificate, **keys: KeyFacts) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, certificates=[*facts.certificates, *more], keys_of=facts.keys_of | keys)


def authorities(*more: Authority, **keys: KeyFacts) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, authorities=[*facts.authorities, *more], keys_of=facts.keys_of | keys)


REVOKED = certificate("pump", "c3", state=CertificateState.REVOKED, revoked=NOW - DAY)
OVER = certificate("pump", "c4", not_before=NOW - 90 * DAY, not_after=NOW - DAY)
LONG_OVER = replace(OVER, not_before=NOW - 300 * DAY, not_after=NOW - 121 * DAY)
ADMIN = {"*": "admin"}
VIOLATIONS: dict[str, list[Callable[[Facts], Facts]]] = {
    "certificate-revoked-connected": [
        lambda facts: replace(certificates(REVOKED)(facts), connected=[connected("pump", "c3")])
    ],
    "certificate-shared": [
        planted(connected=[connected("pump", "c1"), connected("pump-2", "c1")]),
        planted(connected=[connected("pump", "c1"), connected("pump", "c1", address="10.0.0.2")]),
    ],
    "authority-expired": [authorities(authority("a", not_after=NOW - DAY))],
    "certificate-expired-connected": [
        lambda facts: replace(certificates(OVER)(facts), connected=[connected("pump", "c4")])
    ],
    "certificate-key-shared": [
        certificates(certificate("fan", "c5", key_fingerprint="key-c1"), c5=GOOD_KEY),
        planted(device_keys=[device_key("pump", "k"), device_key("fan", "k")]),
    ],
    "certificate-weak": [
        certificates(certificate("pump", "c6"), c6=KeyFacts("rsa", 1_024, "", "sha256")),
        certificates(certificate("pump", "c6"), c6=KeyFacts("rsa", 2_048, "", "sha1")),
        certificates(certificate("pump", "c6"), c6=KeyFacts("ec", 192, "secp192r1", "sha256")),
        certificates(certificate("pump", "c6"), c6=KeyFacts("unknown", 0, "", "")),
    ],
    "authority-weak": [authorities(authority("a"), a=KeyFacts("rsa", 1_024, "", "sha256"))],
    "authority-retired-in-use": [authorities(authority("ours", state=AuthorityState.RETIRED))],
    "authority-expiring": [authorities(authority("a", not_after=NOW + 170 * DAY))],
    "authority-unproven": [planted(proven=frozenset())],
    "certificate-expired": [
        planted(certificates=[LONG_OVER, certificate("fan", "c2")]),
        planted(certificates=[replace(OVER, state=CertificateState.SUPERSEDED), certificate("fan", "c2")]),
        planted(certificates=[replace(OVER, authority="factory"), certificate("fan", "c2")]),
        planted(
            certificates=[OVER, certificate("fan", "c2")], settings=replace(HEALTHY.settings, renewal_grace_days=0)
        ),
    ],
    "certificate-in-grace": [planted(certificates=[OVER, certificate("fan", "c2")])],
    "certificate-expiring": [
        planted(
            certificates=[
                certificate("pump", "c1", not_before=NOW - 85 * DAY, not_after=NOW + 5 * DAY),
                certificate("fan", "c2"),
            ]
        )
    ],
    "authority-any-id": [
        authorities(
            authority("factory", kind=AuthorityKind.FACTORY, tenant=ACME, terms=AuthorityTerms(ids, just_in_time=True))
        )
        for ids in ((), ("*",))
    ],
    "authority-outside-terms": [
        planted(
            authorities=[
                authority("ours"),
                authority("works", kind=AuthorityKind.FACTORY, tenant=ACME, terms=AuthorityTerms(("press-*",))),
            ],
            certificates=[
                certificate("pump", "c1", authority="works"),
                certificate("fan", "c2"),
            ],
            proven=frozenset({"works"}),
        )
    ],
    "certificate-long-lived": [certificates(certificate("pump", "c7", not_after=NOW + 400 * DAY))],
    "certificate-old": [
        certificates(certificate("pump", "c8", not_before=NOW - 365 * DAY - 1, not_after=NOW + DAY // 2))
    ],
    "certificate-unused": [
        certificates(certificate("pump", "c9", state=CertificateState.PENDING, created=NOW - 31 * DAY))
    ],
    "device-token-shared": [
        planted(connected=[connected("pump", "dt-1"), connected("pump", "dt-1", address="10.0.0.2")])
    ],
    "token-admin-endless": [planted(tokens=[token(grants={"acme": "admin"}, scopes=(), expires=0)])],
    "token-wide": [
        planted(tokens=[token(grants=ADMIN, scopes=())]),
        planted(tokens=[token(grants={"*": "operator"}, scopes=("devices:write",))]),
    ],
    "claim-unlimited": [planted(claims=[claim(uses_max=None)])],
    "claim-endless": [planted(claims=[claim(expires=0)]), planted(claims=[claim(expires=0, state=ClaimState.BOUND)])],
    "administrators-many": [planted(users=[user(grants=ADMIN)._replace(name=f"ada-{number}") for number in range(6)])],
    "token-endless": [planted(tokens=[token(expires=0)])],
    "token-stale": [planted(tokens=[token(created=NOW - 100 * DAY, last_used=NOW - 91 * DAY)])],
    "device-token-endless": [planted(device_tokens=[device_token(expires=0)])],
    "device-token-stale": [planted(device_tokens=[device_token(created=NOW - 100 * DAY, last_used=0)])],
    "claim-old": [planted(claims=[claim(created=NOW - 31 * DAY, uses=0)])],
    "user-idle": [planted(users=[user(last_sign_in=NOW - 91 * DAY)]), planted(users=[user(last_sign_in=0)])],
    "user-without-sign-in": [planted(users=[user(has_password=False)])],
    "device-blocked-connected": [
        planted(devices=[device("pump", lifecycle=each), device("fan")])
        for each in (Lifecycle.SUSPENDED, Lifecycle.RETIRED)
    ],
    "client-id-conflict": [planted(conflicts={"pump": 5})],
    "refusals-many": [planted(refused={"session.refuse": 100})],
    "device-unclaimed-long": [
        planted(devices=[device("fan"), replace(device("new", lifecycle=Lifecycle.UNCLAIMED), created=NOW - 8 * DAY)])
    ],
    "device-clock-off": [planted(clocks=[ClockFact("pump", -70 * NS, 2 * NS)])],
    "device-without-credential": [planted(devices=[device("pump"), device("bare")])],
    "device-unclaimed": [planted(devices=[device("fan"), device("new", lifecycle=Lifecycle.UNCLAIMED)])],
    "files-open": [planted(open_files=["admin-token"])],
    "broker-password": [settings(mqtt_username="u", mqtt_password="p")],
    "broker-link-plaintext": [settings(mqtt_broker="external", mqtt_host="10.0.0.9")],
    "database-plaintext": [
        settings(database_url="postgresql+psycopg://u:p@db.example/godwit"),
        settings(database_url="postgresql+psycopg://u:p@10.0.0.3/godwit?sslmode=allow"),
    ],
    "listener-plaintext": [settings(local_listener=True)],
    "passphrase-beside-keys": [planted(has_own_passphrase_file=True)],
    "root-key-online": [authorities(authority("root-2", kind=AuthorityKind.ROOT))],
    "tenants-unlimited": [planted(tenants={"acme": True, "brook": False})],
    "logging-quiet": [settings(log_level="error")],
    "door-unused": [planted(device_tokens=[]), planted(device_keys=[])],
    "tls-1.2-allowed": [settings(tls_minimum="1.2")],
}


def codes(facts: Facts) -> set[str]:
    return {each.code for each in audit(facts, is_whole=True).findings}


def test_a_healthy_fleet_has_no_findings() -> None:
    found = audit(HEALTHY, is_whole=True)
    assert found.findings == []
    assert found.worst is None
    assert len(found.passed) == len(CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_each_check_finds_what_is_planted_and_nothing_else_does(check: Check) -> None:
    for plant in VIOLATIONS[check.code]:
        assert codes(plant(HEALTHY)) == {check.code}
        finding = next(each for each in audit(plant(HEALTHY), is_whole=True).findings if each.code == check.code)
        assert finding.count == len(finding.affected) >= 1
        assert finding.affected[0].name


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (authorities(authority("a", not_after=NOW - DAY, state=AuthorityState.RETIRED)), "a retired one may end"),
        (authorities(authority("a", not_after=NOW + DAY, state=AuthorityState.RETIRING)), "it is being rolled over"),
        (certificates(OVER), "there is a newer one"),
        (certificates(REVOKED), "it was revoked and is not connected"),
        (planted(devices=[device("pump", lifecycle=Lifecycle.RETIRED), device("fan")],
                 connected=[], certificates=[OVER, certificate("fan", "c2")]), "a retired device needs none"),
        (planted(tokens=[token(expires=NOW - 1, grants=ADMIN, scopes=())]), "it has expired"),
        (planted(tokens=[token(revoked=NOW - 1, expires=0)]), "it was revoked"),
        (planted(tokens=[token(grants={"*": "admin"}, scopes=("devices:read",))]), "it reads only"),
        (planted(claims=[claim(state=ClaimState.REVOKED, expires=0, uses_max=None)]), "it was revoked"),
        (planted(claims=[claim(expires=NOW - 1, uses_max=None)]), "it has expired"),
        (planted(users=[user(is_disabled=True, last_sign_in=0)]), "it is disabled"),
        (settings(database_url="postgresql+psycopg://u:p@127.0.0.1/g"), "it does not leave the machine"),
        (settings(database_url="postgresql+psycopg://u:p@db/g?sslmode=verify-full"), "it is encrypted"),
        (settings(mqtt_broker="external", mqtt_host="localhost"), "it does not leave the machine"),
        (planted(clocks=[ClockFact("pump", 90 * NS, 60 * NS)]), "it may be right"),
    ],
)  # fmt: skip
def test_what_is_in_order_is_not_found(plant: Callable[[Facts], Facts], why: str) -> None:
    assert codes(plant(HEALTHY)) == set(), why


def test_the_gravest_come_first_and_many_are_counted() -> None:
    many = [device(f"new-{number}", lifecycle=Lifecycle.UNCLAIMED) for number in range(AFFECTED_MAX + 1)]
    facts = replace(settings(local_listener=True)(HEALTHY), devices=many, connected=[connected("x", "c1")] * 2)
    facts = replace(facts, connected=[connected("a", "c1"), connected("b", "c1")], certificates=HEALTHY.certificates)
    found = audit(facts, is_whole=True)
    ranks = [each.severity.rank for each in found.findings]
    assert ranks == sorted(ranks, reverse=True)
    assert found.worst is Severity.CRITICAL
    unclaimed = next(each for each in found.findings if each.code == "device-unclaimed")
    assert (unclaimed.count, len(unclaimed.affected)) == (AFFECTED_MAX + 1, AFFECTED_MAX)


def test_the_installation_is_nobodys_business_but_its_own() -> None:
    facts = settings(local_listener=True, tls_minimum="1.2")(planted(has_own_passphrase_file=True)(HEALTHY))
    found = audit(facts, is_whole=False)
    assert found.findings == []
    assert not any(each.of_installation for each in found.passed)


def test_codes_are_told_apart_and_say_what_to_do() -> None:
    assert len({each.code for each in CHECKS}) == len(CHECKS) == len(VIOLATIONS)
    for each in CHECKS:
        assert each.why.endswith("."), each.code
        assert each.todo.endswith((".", ")")), each.code


def _certificate(key: Any, digest: Any) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    return builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(1)).sign(key, digest)


def test_keys_are_read_from_certificates() -> None:
    strong = _certificate(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    assert key_facts(strong) == KeyFacts("ec", 256, "secp256r1", "sha256")
    assert weakness(key_facts(strong)) == ""
    odd = _certificate(ec.generate_private_key(ec.SECP192R1()), hashes.SHA256())
    assert weakness(key_facts(odd)) == "curve secp192r1"
    short = _certificate(rsa.generate_private_key(65_537, 1_024), hashes.SHA256())
    assert weakness(key_facts(short)) == "RSA of 1024 bits"
    edwards = _certificate(ed25519.Ed25519PrivateKey.generate(), None)
    assert (key_facts(edwards).kind, weakness(key_facts(edwards))) == ("ed25519", "")
