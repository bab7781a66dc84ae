"""Claims, renewals, factory certificates, just in time: who gets a certificate, and who does not."""

import datetime as dt
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from godwit.contract.errors import MalformedError, RejectedError
from godwit.contract.ids import DeviceId, TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.identity.model import (
    AuthorityKind,
    CertificateState,
    ClaimKind,
    ClaimState,
    Credential,
    Door,
    EnrollmentRule,
    Landing,
    Source,
)
from godwit.server.registry.model import Device, Lifecycle

ADMIN = Principal("admin")
ACME = TenantId("acme")


def renewing(certificate) -> Credential:
    return Credential(Door.CERTIFICATE, certificate.fingerprint, certificate.tenant, certificate.device_id)


# --- one-time claims ------------------------------------------------------------------------------------------------


def test_a_claim_gives_a_new_device_its_certificate(rig, make):
    claim, token = rig.claim(tenant=ACME, name="line 3")
    grant = rig.ask("pump-7", claim=token)
    assert grant.code is None, grant.message
    made = x509.load_pem_x509_certificate(grant.certificate.encode())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(grant.chain[0].encode()))
    assert grant.authorities == rig.identity.authorities.anchors()
    assert grant.time > claim.created
    device = rig.registry.device(ADMIN, DeviceId("pump-7"))
    assert (device.tenant, device.lifecycle) == ("acme", Lifecycle.ACTIVE)
    assert rig.certificate(grant).source is Source.CLAIM
    assert token not in str(rig.audited("claim.create") + rig.audited("enrollment.grant"))


def test_a_one_time_claim_belongs_to_its_first_key_and_answers_it_alike_until_it_is_spent(rig, make):
    claim, token = rig.claim(tenant=ACME)
    key = make.key()
    first, again = rig.ask("pump-7", key, claim=token), rig.ask("pump-7", key, claim=token)
    assert again.certificate == first.certificate
    assert rig.ask("pump-7", claim=token).code == "claim-bound"
    assert rig.ask("pump-8", key, claim=token).code in ("claim-bound", "key-shared")
    assert rig.enrollment.claims.find(claim.claim_id).state is ClaimState.BOUND
    assert rig.enrollment.credential_of_claim(token) is not None

    rig.connect(rig.certificate(first))
    assert rig.enrollment.claims.find(claim.claim_id).state is ClaimState.SPENT
    assert rig.enrollment.credential_of_claim(token) is None
    assert rig.ask("pump-7", key, claim=token).code == "claim-spent"
    assert rig.ask("pump-7", claim=token).code == "claim-spent"
    assert [row.after["code"] for row in rig.audited()][-2:] == ["claim-spent", "claim-spent"]


def test_two_keys_at_once_get_one_certificate(rig, make):
    _, token = rig.claim(tenant=ACME)
    grants = []
    threads = [threading.Thread(target=lambda: grants.append(rig.ask("pump-7", claim=token))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(str(each.code) for each in grants) == ["None", "claim-bound", "claim-bound", "claim-bound"]


def test_only_one_key_uses_a_one_time_claim_whatever_was_decided_before(rig):
    claims = rig.enrollment.claims
    claim, _ = rig.claim(tenant=ACME)
    assert [claims.use(claim, key) for key in ("one", "other", "one")] == [True, False, True]
    claims.revoke(ADMIN, claim.claim_id)
    assert not claims.use(claim, "one")
    fleet, _ = rig.claim(tenant=ACME, kind=ClaimKind.FLEET, uses_max=1)
    assert [claims.use(fleet, key) for key in ("one", "other")] == [True, False]


def test_what_a_claim_is_not_good_for_is_answered_like_an_unknown_one(rig):
    _, other_device = rig.claim(tenant=ACME, device_id=DeviceId("pump-1"))
    _, other_ids = rig.claim(tenant=ACME, ids=("press-*",))
    _, other_tenant = rig.claim(tenant=ACME)
    rig.registry.create_device(ADMIN, Device(DeviceId("pump-7")))
    answers = {
        (each.code, each.message)
        for each in (
            rig.ask("pump-7", claim="gwc_never-made"),
            rig.ask("pump-7", claim="rubbish"),
            rig.ask("pump-7", claim=other_device),
            rig.ask("pump-7", claim=other_ids),
            rig.ask("pump-7", claim=other_tenant),
        )
    }
    assert len(answers) == 1
    assert answers.pop()[0] == "claim-unknown"
    details = [row.after["detail"] for row in rig.audited()]
    assert details[2:] == ["it is for 'pump-1'", "it is for ids like press-*", "the id is another tenant's"]


def test_expired_revoked_and_missing_claims(rig):
    claim, token = rig.claim(tenant=ACME)
    rig.enrollment.claims.revoke(ADMIN, claim.claim_id)
    assert rig.ask("pump-7", claim=token).code == "claim-revoked"
    assert rig.changes[-1].state is ClaimState.REVOKED
    _, token = rig.claim(tenant=ACME, lifetime_s=1)
    by = rig.enrollment.credential_of_claim(token)
    late = Credential(by.door, by.name, by.tenant, ends=1)
    assert rig.ask("pump-7", by=late).code == "credential-expired"
    assert rig.ask("pump-7").code == "claim-needed"
    application = Credential(Door.APPLICATION, "t1", ACME)
    assert rig.ask("pump-7", by=application).code == "claim-needed"


# --- fleets -----------------------------------------------------------------------------------------------------------


def test_a_fleet_claim_is_good_as_often_as_it_says_and_never_for_a_device_that_lives(rig, make):
    claim, token = rig.claim(tenant=ACME, kind=ClaimKind.FLEET, ids=("pump-*",), uses_max=2)
    key = make.key()
    first = rig.ask("pump-1", key, claim=token)
    assert rig.ask("pump-1", key, claim=token).certificate == first.certificate
    assert rig.enrollment.claims.find(claim.claim_id).uses == 1
    rig.connect(rig.certificate(first))
    assert rig.ask("pump-1", claim=token).code == "already-enrolled"
    assert rig.ask("pump-2", claim=token).code is None
    assert rig.ask("pump-3", claim=token).code == "claim-spent"
    assert rig.ask("pump-1", key, claim=token).certificate == first.certificate


def test_a_fleet_claim_does_not_take_the_id_of_a_device_with_a_token_or_of_one_that_was_shut_out(rig):
    _, token = rig.claim(tenant=ACME, kind=ClaimKind.FLEET)
    grant = rig.ask("pump-1", claim=token)
    rig.identity.revocation.revoke(rig.certificate(grant).fingerprint, "keyCompromise", "admin")
    assert rig.ask("pump-1", claim=token).code == "already-enrolled"
    rig.registry.create_device(ADMIN, Device(DeviceId("pump-2"), ACME))
    assert rig.ask("pump-2", claim=token).code is None, "made by an operator, without any credential yet"


def test_a_key_that_another_device_has_is_refused(rig, make):
    _, token = rig.claim(tenant=ACME, kind=ClaimKind.FLEET)
    key = make.key()
    assert rig.ask("pump-1", key, claim=token).code is None
    assert rig.ask("pump-2", key, claim=token).code == "key-shared"


def test_when_one_answer_was_lost_the_certificate_that_connects_first_is_the_one(rig):
    _, token = rig.claim(tenant=ACME, kind=ClaimKind.FLEET)
    lost, kept = (rig.certificate(rig.ask("pump-1", claim=token)) for _ in range(2))
    younger = rig.certificate(rig.ask("pump-1", claim=token))
    rig.connect(kept)
    assert rig.state(lost).state is CertificateState.REVOKED
    assert rig.state(younger).state is CertificateState.REVOKED, "or who has a fleet claim could wait with one"


def test_who_has_connected_a_moment_ago_has_an_identity(rig):
    _, token = rig.claim(tenant=ACME, kind=ClaimKind.FLEET)
    certificate = rig.certificate(rig.ask("pump-1", claim=token))
    rig.identity.revocation.seen(certificate.fingerprint)  # not written down yet
    assert rig.ask("pump-1", claim=token).code == "already-enrolled"


def test_the_old_hardware_that_renews_does_not_stop_the_new(rig):
    _, token = rig.claim(tenant=ACME)
    old = rig.connect(rig.certificate(rig.ask("pump-7", claim=token)))
    _, this_id = rig.claim(tenant=ACME, device_id=DeviceId("pump-7"))
    new = rig.certificate(rig.ask("pump-7", claim=this_id))
    renewed = rig.connect(rig.certificate(rig.ask("pump-7", by=renewing(old))))
    assert rig.state(new).state is CertificateState.PENDING
    rig.connect(new)
    assert [rig.state(each).state for each in (old, renewed)] == [CertificateState.REVOKED] * 2


# --- renewal, replacement ---------------------------------------------------------------------------------------------


def test_a_device_renews_without_a_claim_and_the_old_certificate_is_superseded_at_first_use(rig, make):
    _, token = rig.claim(tenant=ACME)
    old = rig.connect(rig.certificate(rig.ask("pump-7", claim=token)))
    key = make.key()
    grant = rig.ask("pump-7", key, by=renewing(old))
    new = rig.certificate(grant)
    assert (new.source, new.state) == (Source.RENEWAL, CertificateState.PENDING)
    assert rig.ask("pump-7", key, by=renewing(old)).certificate == grant.certificate
    assert rig.state(old).state is CertificateState.ACTIVE
    rig.connect(new)
    assert rig.state(old).state is CertificateState.SUPERSEDED
    assert rig.ask("pump-7", key, by=renewing(new)).certificate != grant.certificate, "the same key renews too"


def test_a_device_renews_only_itself(rig):
    _, token = rig.claim(tenant=ACME)
    old = rig.connect(rig.certificate(rig.ask("pump-7", claim=token)))
    assert rig.ask("pump-8", by=renewing(old)).code == "device-mismatch"
    rig.registry.change_device(ADMIN, DeviceId("pump-7"), {"lifecycle": "suspended"})
    assert rig.ask("pump-7", by=renewing(old)).code == "device-suspended"
    rig.registry.retire_device(ADMIN, DeviceId("pump-7"))
    assert rig.ask("pump-7", by=renewing(old)).code == "device-retired"
    rig.registry.erase_device(ADMIN, DeviceId("pump-7"))
    assert rig.ask("pump-7", by=renewing(old)).code == "unknown-device"


def test_a_claim_for_an_id_replaces_the_hardware_and_the_old_is_out_at_first_use(rig):
    _, token = rig.claim(tenant=ACME)
    old = rig.connect(rig.certificate(rig.ask("pump-7", claim=token)))
    _, any_id = rig.claim(tenant=ACME)
    assert rig.ask("pump-7", claim=any_id).code == "already-enrolled"
    _, this_id = rig.claim(tenant=ACME, device_id=DeviceId("pump-7"))
    new = rig.certificate(rig.ask("pump-7", claim=this_id))
    assert rig.state(old).state is CertificateState.ACTIVE
    rig.connect(new)
    assert (rig.state(old).state, rig.state(old).reason) == (CertificateState.REVOKED, "superseded")


def test_a_revoked_key_does_not_come_back(rig, make):
    _, token = rig.claim(tenant=ACME, device_id=DeviceId("pump-7"))
    key = make.key()
    rig.identity.revocation.revoke(
        rig.certificate(rig.ask("pump-7", key, claim=token)).fingerprint, "keyCompromise", "a"
    )
    assert rig.ask("pump-7", key, claim=token).code == "key-revoked"


# --- landing ----------------------------------------------------------------------------------------------------------


def test_a_new_device_lands_by_rule_and_a_claim_says_it_better(rig):
    rules = rig.enrollment.rules
    north = Landing(groups=("north",), tags={"hall": "1"}, configuration={"interval": 60})
    rules.put(ADMIN, EnrollmentRule("b-all", ACME, 9, landing=Landing(groups=("others",))))
    rules.put(ADMIN, EnrollmentRule("a-pumps", ACME, 1, "pump-*", landing=north))
    rules.put(ADMIN, EnrollmentRule("factory", ACME, 0, sources=(Source.FACTORY,), landing=Landing(groups=("never",))))
    _, token = rig.claim(tenant=ACME, kind=ClaimKind.FLEET)
    grant = rig.ask("pump-7", claim=token)
    assert grant.configuration == {"interval": 60}
    assert rig.ask("press-1", claim=token).configuration is None
    _, own = rig.claim(tenant=ACME, landing=Landing(tags={"hall": "2", "row": "4"}))
    rig.ask("pump-8", claim=own)
    groups = {each.name: each.size for each in rig.registry.groups(ADMIN)}
    assert groups == {"north": 2, "others": 1}
    assert rig.registry.device(ADMIN, DeviceId("pump-8")).tags == {"hall": "2", "row": "4"}


def test_an_unclaimed_device_is_claimed(rig):
    rig.registry.register_unclaimed([DeviceId("pump-7")], 1)
    _, foreign = rig.claim(tenant=ACME)
    assert rig.ask("pump-7", claim=foreign).code == "claim-unknown", "it is the default tenant's until it is given"
    _, token = rig.claim()
    assert rig.ask("pump-7", claim=token).code is None
    assert rig.registry.device(ADMIN, DeviceId("pump-7")).lifecycle is Lifecycle.ACTIVE


# --- bad requests -----------------------------------------------------------------------------------------------------


def bad_requests(make):
    wants_authority = x509.BasicConstraints(ca=True, path_length=0)
    other_name = x509.SubjectAlternativeName([x509.DNSName("broker.example")])
    return {
        "csr-wrong-name": make.csr("pump-8"),
        "csr-wrong-name ": make.csr("pump-7", None, other_name),
        "csr-wants-authority": make.csr("pump-7", None, wants_authority),
        "weak-key": make.csr("pump-7", rsa.generate_private_key(65_537, 1_024)),
        "csr-too-large": "-----BEGIN CERTIFICATE REQUEST-----\n" + "A" * 20_000,
        "csr-malformed": make.csr("pump-7")[:-200],
        "csr-malformed ": "",
        "csr-malformed  ": "\0\ud7ff",
    }


def test_bad_requests_are_refused_with_a_code_and_audited_and_bind_nothing(rig, make):
    _, token = rig.claim(tenant=ACME)
    for code, request in bad_requests(make).items():
        assert rig.ask("pump-7", claim=token, request=request).code == code.strip()
    assert rig.ask("no device", claim=token).code == "invalid-device-id"
    assert rig.ask("nul\0", claim=token).code == "invalid-device-id"
    wanted = [*(code.strip() for code in bad_requests(make)), "invalid-device-id", "invalid-device-id"]
    assert [row.after["code"] for row in rig.audited()] == wanted
    assert all("\0" not in row.about for row in rig.audited())
    with pytest.raises(RejectedError):
        rig.registry.device(ADMIN, DeviceId("pump-7"))


def test_too_many_refusals_from_an_address_are_not_even_looked_at(rig):
    codes = [rig.ask("pump-7", claim="gwc_guess", by=None, address="192.0.2.1").code for _ in range(70)]
    assert set(codes) == {"claim-unknown", "rate-limited"}
    assert rig.ask("pump-8", claim="gwc_guess", address="192.0.2.2").code == "claim-unknown"
    assert len(rig.audited()) <= 63
    check_counted(rig, codes)


def check_counted(rig, codes):
    """See that each that was turned away is in the audit log: the first at once, the others a minute later."""
    assert [row.after["code"] for row in rig.audited()].count("rate-limited") == 1
    rig.enrollment.refusals.tell_more(at_once=True)
    more = rig.audited()[-1].after
    assert more["codes"] == {"rate-limited": codes.count("rate-limited") - 1}


def test_guesses_of_others_behind_its_address_do_not_slow_a_good_claim_or_certificate(rig, make):
    factory, here = rig.trust(), "192.0.2.1"
    _, token = rig.claim(tenant=ACME)
    for number in range(70):
        rig.ask("pump-7", claim="gwc_guess", address=here)
        with pytest.raises((RejectedError, MalformedError)):
            rig.enrollment.take_in(b"no certificate %d" % number, address=here)
    assert rig.ask("pump-7", claim="gwc_guess", address=here).code == "rate-limited"
    assert rig.ask("pump-7", claim=token, address=here).code is None
    assert rig.enrollment.take_in(factory.make("pump-8"), address=here).common_name == "pump-8"
    with pytest.raises(RejectedError, match="too many refused"):
        rig.enrollment.take_in(b"no certificate", address=here)
    by = rig.enrollment.take_in(factory.make("pump-9"), address=here)
    assert rig.ask("pump-9", by=by, address=here).code is None
    assert len(rig.audited()) <= 2 * 62


def test_guesses_from_a_whole_network_of_ipv6_count_as_one(rig):
    codes = [rig.ask("pump-7", claim="gwc_guess", address=f"2001:db8:0:7::{number:x}").code for number in range(70)]
    assert codes[-1] == "rate-limited"
    assert rig.ask("pump-8", claim="gwc_guess", address="2001:db8:0:8::1").code == "claim-unknown"


# --- factory certificates, just in time -------------------------------------------------------------------------------


def test_a_factory_certificate_enrolls_its_own_device(rig):
    factory = rig.trust(ids=("pump-*",), landing=Landing(groups=("from-works",)))
    by = rig.enrollment.take_in(factory.make("pump-7"))
    assert (by.door, by.tenant, by.device_id, by.common_name) == (Door.FACTORY, "acme", None, "pump-7")
    assert rig.ask("pump-8", by=by).code == "device-mismatch"
    grant = rig.ask("pump-7", by=by)
    assert grant.code is None
    assert [each.name for each in rig.registry.groups(ADMIN)] == ["from-works"]
    old = rig.connect(rig.certificate(grant))
    reset = rig.certificate(rig.ask("pump-7", by=by))
    rig.connect(reset)
    assert rig.state(old).state is CertificateState.SUPERSEDED
    rig.identity.revocation.revoke(reset.fingerprint, "keyCompromise", "admin")
    assert rig.ask("pump-7", by=by).code == "already-enrolled", "who was shut out does not let himself in"


def test_just_in_time_takes_an_unknown_device_in(rig):
    factory = rig.trust(just_in_time=True, ids=("pump-*",), landing=Landing(configuration={"interval": 5}))
    der = factory.make("pump-7")
    by = rig.enrollment.take_in(der)
    assert (by.door, by.device_id, by.tenant) == (Door.CERTIFICATE, "pump-7", "acme")
    assert rig.enrollment.take_in(der) == by
    assert rig.registry.device(ADMIN, DeviceId("pump-7")).tenant == "acme"
    assert rig.enrollment.configuration(DeviceId("pump-7")) == {"interval": 5}
    rig.identity.revocation.revoke(by.name, "keyCompromise", "admin")
    with pytest.raises(RejectedError, match="revoked"):
        rig.enrollment.take_in(der)
    with pytest.raises(RejectedError) as caught:
        rig.enrollment.take_in(factory.make("pump-7"))
    assert caught.value.code == "already-enrolled"


def test_a_customers_authority_vouches_for_devices_that_are_registered(rig):
    customer = rig.trust(AuthorityKind.CUSTOMER)
    with pytest.raises(RejectedError) as caught:
        rig.enrollment.take_in(customer.make("pump-7"))
    assert caught.value.code == "unknown-device"
    rig.registry.create_device(ADMIN, Device(DeviceId("pump-7"), ACME))
    assert rig.enrollment.take_in(customer.make("pump-7")).device_id == "pump-7"
    rig.registry.create_device(ADMIN, Device(DeviceId("pump-8")))
    with pytest.raises(RejectedError) as caught:
        rig.enrollment.take_in(customer.make("pump-8"))
    assert caught.value.code == "unknown-device", "another tenant's"


def test_bad_certificates_take_nobody_in(rig):
    factory, stranger = rig.trust(just_in_time=True, ids=("pump-*",)), rig.trust(tenant="acme")
    stranger.name = factory.name
    day = dt.timedelta(days=1)
    server_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    bad = {
        "certificate-expired": factory.make("pump-7", ends=-day / 48),
        "certificate-not-yet-valid": factory.make("pump-7", begins=day),
        "certificate-wrong-name": factory.make("press-7"),
        "certificate-wrong-name ": factory.make("not an id"),
        "certificate-purpose": factory.make("pump-7", None, x509.BasicConstraints(ca=True, path_length=None)),
        "certificate-purpose ": factory.make("pump-7", None, server_only),
        "authority-unknown": stranger.make("pump-7"),
        "weak-key": factory.make("pump-7", rsa.generate_private_key(65_537, 1_024)),
        "certificate-malformed": b"\x30\x03rub",
        "certificate-too-large": b"\x30" * 20_000,
    }
    for code, der in bad.items():
        with pytest.raises((RejectedError, MalformedError)) as caught:
            rig.enrollment.take_in(der, address="192.0.2.1")
        assert caught.value.code == code.strip()
    assert [row.after["code"] for row in rig.audited()] == [code.strip() for code in bad]
    assert rig.audited()[0].address == "192.0.2.1"
    assert not rig.registry.devices(ADMIN).items


def test_a_hash_that_is_broken_signs_nothing(rig, make, sha1_csr):
    _, token = rig.claim(tenant=ACME)
    assert rig.ask("pump-7", claim=token, request=sha1_csr).code == "weak-signature"


def test_a_renewal_that_was_under_way_when_its_certificate_was_revoked_is_refused(rig, make):
    """The session of a revoked certificate ends at once; what it sent just before is judged just after."""
    _, token = rig.claim(tenant=ACME)
    certificate = rig.connect(rig.certificate(rig.ask("pump-7", claim=token)))
    by = renewing(certificate)
    rig.identity.revocation.revoke(certificate.fingerprint, "keyCompromise", "admin")
    grant = rig.ask("pump-7", by=by)
    assert (grant.code, grant.certificate) == ("certificate-revoked", "")
    assert rig.audited()[-1].after["code"] == "certificate-revoked"


def test_a_released_device_is_not_taken_back_by_a_renewal_that_was_under_way(rig, make):
    _, token = rig.claim(tenant=ACME)
    certificate = rig.connect(rig.certificate(rig.ask("pump-7", claim=token)))
    wanted = []
    rig.enrollment.on_configured = lambda *told: wanted.append(told)
    rig.identity.custody.release(ADMIN, DeviceId("pump-7"))
    assert ("pump-7", {}) in wanted, "whatever was retained for it is taken away"
    assert rig.ask("pump-7", by=renewing(certificate)).code == "certificate-revoked"
    assert rig.registry.device(ADMIN, DeviceId("pump-7")).lifecycle is Lifecycle.UNCLAIMED


def test_a_device_that_asks_too_often_does_not_fill_the_audit_log_whatever_names_it_says(rig, make):
    _, token = rig.claim(tenant=ACME)
    by = renewing(rig.connect(rig.certificate(rig.ask("pump-7", claim=token))))
    codes = [rig.ask(f"pump-{at}", by=by).code for at in range(100, 140)]
    assert codes[0] == "device-mismatch"
    assert codes[-1] == "rate-limited"
    assert len(rig.audited()) < 26
    check_counted(rig, codes)
