"""Does a certificate that has ended open its own renewal for a while, and nothing else?"""

from typing import Any

import msgspec
import pytest

from godwit.mqtt.packets import Connect
from godwit.server.accounts.principal import Principal
from godwit.server.broker.authentication import FleetAuthenticator
from godwit.server.broker.refusals import Denial
from godwit.server.broker.rights import Grant
from godwit.server.broker.switches import Switches
from godwit.server.identity.grace import DAY_NS, is_in_grace, renewable_until
from godwit.server.identity.model import CertificateState, Door
from godwit.server.registry.model import Lifecycle

DAYS = 30
ADMIN = Principal("admin")


class Yard:
    """A device whose certificate ended a while ago, and the door at which it stands."""

    def __init__(self, rig: Any, make: Any) -> None:
        self.rig = rig
        _, claim = rig.claim(tenant="acme")
        self.certificate = rig.connect(rig.certificate(rig.ask("pump-7", make.key(), claim=claim)))
        rig.registry.on_change(rig.identity.roster.learn)
        rig.identity.roster.learn(rig.enrollment.device(self.certificate.device_id))
        self.now = self.certificate.not_after + DAY_NS

    def decide(self, user: str | None = "renewal", *, days: int = DAYS, client_id: str = "") -> Any:
        import ssl  # noqa: PLC0415

        fleet = FleetAuthenticator(
            self.rig.identity.roster, lambda _client, _device: False, None, Switches(grace_days=days),
            now_ns=lambda: self.now,
        )  # fmt: skip
        der = ssl.PEM_cert_to_DER_cert(self.certificate.certificate)
        self.again = lambda credential: fleet.judge_again(credential, der, client_id)
        self.absent = lambda credential: fleet.judge_absent(credential, client_id)
        return fleet.authenticate("tls", Connect(client_id, username=user), der, "192.0.2.1")

    def code(self, *given: Any, **named: Any) -> str:
        decision = self.decide(*given, **named)
        return decision.code if isinstance(decision, Denial) else ""


@pytest.fixture
def yard(rig, make):
    return Yard(rig, make)


def test_in_grace_it_opens_its_renewal_and_nothing_else(yard, make):
    grant = yard.decide()
    assert isinstance(grant, Grant)
    assert grant.credential.door is Door.ENDED
    assert grant.credential.ends == yard.certificate.not_after + DAYS * DAY_NS
    assert grant.identity != "device:pump-7", "what waits for the device in its session is not given out"
    rights = grant.rights
    assert rights.refusal("enrollment/pump-7/request", None) == ""
    assert rights.may_subscribe("enrollment/pump-7/grant")
    for topic in ("devices/pump-7/telemetry", "devices/pump-7/status", "enrollment/pump-8/request", "x"):
        assert rights.refusal(topic, None) == "certificate-expired"
    for topic in ("devices/pump-7/commands", "devices/pump-7/#", "enrollment/pump-8/grant", "#"):
        assert not rights.may_subscribe(topic)
    renewed = yard.rig.ask("pump-7", make.key(), by=grant.credential)
    assert renewed.code is None
    new = yard.rig.certificate(renewed)
    assert new.source == "renewal"
    (line,) = [each for each in yard.rig.audited("enrollment.grant") if each.after["by"] == "ended-certificate"]
    assert line.about == "pump-7"
    assert yard.rig.ask("pump-8", make.key(), by=grant.credential).code == "device-mismatch"
    yard.rig.connect(new)  # and with the new one in use, the old one opens nothing more
    assert yard.code() == "certificate-expired"
    assert yard.again(grant.credential).code == "certificate-expired"
    assert yard.rig.ask("pump-7", make.key(), by=grant.credential).code == "certificate-expired"


def test_outside_of_grace_and_without_a_word_it_is_refused_as_ever(yard):
    assert yard.code(None) == yard.code("pump-7") == "certificate-expired", "who does not say so wants more"
    assert yard.code(days=0) == "certificate-expired"
    assert yard.code(client_id="pump-8") == "client-id-mismatch"
    yard.now = yard.certificate.not_after + DAYS * DAY_NS
    assert yard.code() == "certificate-expired"
    yard.now -= 1
    assert yard.code() == ""
    yard.now = yard.certificate.not_after - 1  # it has not ended: it is the device's own, whatever the user name
    assert yard.decide().credential.door is Door.CERTIFICATE


def test_what_was_taken_away_is_not_in_grace(yard, make):
    credential = yard.decide().credential
    yard.rig.registry.change_device(ADMIN, yard.certificate.device_id, {"lifecycle": Lifecycle.SUSPENDED})
    assert yard.code() == "device-suspended"
    assert yard.again(credential).code == "device-suspended"
    assert yard.rig.ask("pump-7", make.key(), by=credential).code == "device-suspended"
    yard.rig.registry.change_device(ADMIN, yard.certificate.device_id, {"lifecycle": Lifecycle.ACTIVE})
    assert yard.code() == ""
    assert yard.absent(credential) is None
    yard.rig.identity.revocation.revoke(yard.certificate.fingerprint, "keyCompromise", "t")
    assert yard.code() == "certificate-revoked"
    assert yard.again(credential).code == yard.absent(credential).code == "certificate-revoked"
    assert yard.rig.ask("pump-7", make.key(), by=credential).code == "certificate-expired"


def test_only_the_last_one_in_use_counts(yard):
    for state in CertificateState:
        other = msgspec.structs.replace(yard.certificate, state=state)
        assert is_in_grace(other, DAYS, yard.now) == (state is CertificateState.ACTIVE)
        assert bool(renewable_until(other, DAYS)) == (state is CertificateState.ACTIVE)


def test_the_authoritys_end_is_the_end(yard):
    authority = yard.rig.identity.roster.authorities[yard.certificate.authority].row
    yard.now = authority.not_after
    assert yard.code(days=100_000) == "certificate-expired"
