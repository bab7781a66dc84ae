"""Rollover: every device is brought along, step by step, and nobody is shut out unless it is forced."""

import datetime as dt
from time import time_ns

import pytest
from cryptography import x509

from godwit.contract import notices
from godwit.contract.errors import RejectedError
from godwit.contract.ids import DEFAULT_TENANT, DeviceId
from godwit.contract.notices import NewAuthorities, RenewalWanted
from godwit.server.accounts.principal import Principal
from godwit.server.identity.campaign import AGAIN_S, PATIENCE
from godwit.server.identity.model import AuthorityState, CampaignKind, CampaignState, Source
from godwit.server.registry.model import Presence

ADMIN = Principal("admin")
S = 1_000_000_000
NOW = time_ns()


class Fleet:
    """Devices that have certificates, and hear notices while they are there."""

    def __init__(self, rooms, count, request_for):
        self.request_for = request_for
        self.rooms, self.heard, self.number = rooms, [], 0
        self.campaigns = rooms.identity.campaigns
        self.campaigns.tell = lambda device, payload: self.heard.append((device, notices.decode(payload)))
        self.ids = [f"pump-{each}" for each in range(count)]
        for each in self.ids:
            rooms.enrolled(each)

    def there(self, *ids, is_online=True, status=None):
        self.number += 1
        rows = [Presence(DeviceId(each), is_online, 1, 1, self.number, "", status) for each in ids]
        self.rooms.registry.write_presence(rows)

    def tick(self, at_s):
        self.heard.clear()
        self.campaigns.tick(NOW + at_s * S)
        return [(device, notice.code) for device, notice in self.heard]

    def renew(self, device_id, *trusts):
        issued = self.rooms.issuance.issue(
            self.request_for(device_id), DeviceId(device_id), DEFAULT_TENANT, Source.RENEWAL, device_id, trusts=trusts
        )
        self.use(device_id)
        return issued.certificate

    def use(self, device_id):
        """Have a device connect with its newest certificate."""
        self.rooms.identity.revocation.seen(self.rooms.issuance.of_device(DeviceId(device_id))[0].fingerprint)
        self.rooms.identity.revocation.flush()

    def steps(self):
        return {device: str(step) for device, step, *_ in self.campaigns.devices(self.campaigns.all()[0].campaign_id)}


@pytest.fixture
def fleet(rooms, csr):
    return Fleet(rooms, 3, csr)


def states(rooms):
    return {(str(each.kind), str(each.state)) for each in rooms.authorities.all()}


def test_an_intermediate_follows_another(rooms, fleet, csr):
    old = rooms.authorities.signer().authority
    fleet.there("pump-0", "pump-1")
    campaign = fleet.campaigns.start(ADMIN, CampaignKind.INTERMEDIATE, rate=1)
    assert campaign.devices == {"waiting": 3, "told": 0, "trusted": 0, "renewed": 0, "failed": 0, "gone": 0}
    assert rooms.authorities.signer().authority.fingerprint == campaign.new
    assert rooms.authorities.get(old.fingerprint).state is AuthorityState.RETIRING
    assert [*fleet.tick(0), *fleet.tick(1), *fleet.tick(2)] == [("pump-0", "renew"), ("pump-1", "renew")]
    fleet.there("pump-2")
    assert fleet.tick(3) == [("pump-2", "renew")]
    (notice,) = [each for _, each in fleet.heard]
    assert notices.details_of(notice) == RenewalWanted("rollover", campaign.new)
    assert fleet.tick(AGAIN_S - 1) == []
    assert fleet.tick(AGAIN_S + 1) == [("pump-0", "renew")]  # told once more
    fleet.renew("pump-0")
    rooms.again()  # a restart changes nothing
    fleet = Fleet.__new__(Fleet)
    fleet.request_for = csr
    fleet.rooms, fleet.heard, fleet.number, fleet.campaigns = rooms, [], 5, rooms.identity.campaigns
    fleet.tick(AGAIN_S + 2)
    assert fleet.steps() == {"pump-0": "renewed", "pump-1": "told", "pump-2": "told"}
    with pytest.raises(RejectedError) as refused:
        fleet.campaigns.change(ADMIN, campaign.campaign_id, CampaignState.FINISHED)
    assert refused.value.code == "devices-left"
    fleet.renew("pump-1")
    rooms.registry.retire_device(ADMIN, DeviceId("pump-2"))
    fleet.tick(AGAIN_S + 3)
    assert fleet.campaigns.all()[0].state is CampaignState.FINISHED  # by itself
    assert states(rooms) == {("root", "active"), ("issuing", "active"), ("issuing", "retired")}


def test_a_root_is_trusted_before_anybody_renews_under_it(rooms, fleet):
    own = rooms.identity.server
    own.ensure()
    fleet.there(*fleet.ids)
    campaign = fleet.campaigns.start(ADMIN, CampaignKind.ROOT)
    assert len(rooms.authorities.anchors()) == 2
    assert {code for _, code in fleet.tick(0)} == {"new-ca"}
    details = notices.details_of(fleet.heard[0][1])
    assert details == NewAuthorities(rooms.authorities.anchors(), campaign.new)
    fleet.there("pump-0", status={"status": "online", "trusts": ["ab" * 32, campaign.new]})
    assert fleet.tick(1) == [("pump-0", "renew")]
    assert fleet.steps()["pump-0"] == "trusted"
    old, new = fleet.renew("pump-1"), fleet.renew("pump-0", campaign.new)
    assert old.authority != new.authority  # who does not trust the new root is served under the old one
    fleet.tick(2)
    assert fleet.steps() == {"pump-0": "renewed", "pump-1": "told", "pump-2": "told"}
    # Until the end the server shows itself under the old root, and its file names both.
    now = dt.datetime.now(dt.UTC)
    assert not own.refresh(now)
    assert own.ca.read_text().count("BEGIN") == 2
    fleet.campaigns.change(ADMIN, campaign.campaign_id, CampaignState.FINISHED, force=True)
    assert states(rooms) == {
        ("root", "active"), ("root", "retired"), ("issuing", "active"), ("issuing", "retired"),
    }  # fmt: skip
    assert own.refresh(now)
    (root,) = x509.load_pem_x509_certificates(own.ca.read_bytes())
    chain = x509.load_pem_x509_certificates(own.files.certificate.read_bytes())
    chain[-1].verify_directly_issued_by(root)


def test_paused_resumed_cancelled(rooms, fleet):
    before = rooms.authorities.signer().authority.fingerprint
    fleet.there(*fleet.ids)
    number = fleet.campaigns.start(ADMIN, CampaignKind.INTERMEDIATE).campaign_id
    with pytest.raises(RejectedError) as refused:
        fleet.campaigns.start(ADMIN, CampaignKind.ROOT)
    assert refused.value.code == "campaign-open"
    fleet.campaigns.change(ADMIN, number, CampaignState.PAUSED)
    assert fleet.tick(0) == []
    fleet.campaigns.change(ADMIN, number, CampaignState.RUNNING)
    assert len(fleet.tick(1)) == 3
    new = fleet.renew("pump-0")
    fleet.campaigns.change(ADMIN, number, CampaignState.CANCELLED)
    assert rooms.authorities.signer().authority.fingerprint == before
    assert rooms.authorities.get(new.authority).state is AuthorityState.RETIRING  # what it issued still counts
    assert fleet.tick(200) == []
    with pytest.raises(RejectedError) as refused:
        fleet.campaigns.change(ADMIN, number, CampaignState.RUNNING)
    assert refused.value.code == "campaign-over"


def test_told_in_vain_and_come_round_after_all(rooms, fleet):
    fleet.there("pump-0")
    fleet.campaigns.start(ADMIN, CampaignKind.INTERMEDIATE)
    for each in range(PATIENCE + 1):
        assert fleet.tick(each * (AGAIN_S + 1)) == [("pump-0", "renew")]
    assert fleet.steps()["pump-0"] == "failed"
    fleet.renew("pump-0")
    fleet.tick(9_999)
    assert fleet.steps()["pump-0"] == "renewed"


def test_who_is_enrolled_meanwhile_is_brought_along(rooms, fleet):
    fleet.there(*fleet.ids)
    campaign = fleet.campaigns.start(ADMIN, CampaignKind.ROOT)
    late = rooms.enrolled("late")  # trusts the old root only, and gets its certificate under it
    assert late.authority != campaign.new
    for each in fleet.ids:
        fleet.renew(each, campaign.new)
    fleet.tick(0)
    assert fleet.campaigns.all()[0].state is CampaignState.RUNNING, "the newcomer would be shut out"
    assert fleet.steps()["late"] == "waiting"
    fleet.there("late", status={"status": "online", "trusts": [campaign.new]})
    assert fleet.tick(1) == [("late", "renew")]
    fleet.renew("late", campaign.new)
    fleet.tick(2)
    assert fleet.campaigns.all()[0].state is CampaignState.FINISHED


def test_who_never_came_holds_nobody_up_once_its_certificate_has_ended(rooms, fleet):
    fleet.campaigns.start(ADMIN, CampaignKind.INTERMEDIATE)
    for each in ("pump-0", "pump-1"):
        fleet.renew(each)
    rooms.identity.revocation.flush()
    fleet.tick(0)
    assert fleet.steps() == {"pump-0": "renewed", "pump-1": "renewed", "pump-2": "waiting"}
    fleet.tick(100 * 86_400)  # the devices that renewed would have renewed again
    assert fleet.steps()["pump-2"] == "gone"
    assert fleet.campaigns.all()[0].state is CampaignState.FINISHED


def test_who_is_away_and_may_renew_though_its_certificate_has_ended_is_waited_for(rooms, csr):
    """The end of its authority would be the end of grace: nobody is shut out unless it is forced."""
    rooms.again(grace_days=30)
    fleet = Fleet(rooms, 2, csr)
    fleet.use("pump-1")
    fleet.campaigns.start(ADMIN, CampaignKind.INTERMEDIATE)
    fleet.renew("pump-0")
    fleet.tick(0)
    fleet.tick(100 * 86_400)
    assert fleet.steps() == {"pump-0": "renewed", "pump-1": "waiting"}
    with pytest.raises(RejectedError, match="shut out"):
        fleet.campaigns.change(ADMIN, 1, CampaignState.FINISHED)
    fleet.renew("pump-1")
    fleet.tick(1)
    assert fleet.campaigns.all()[0].state is CampaignState.FINISHED


def test_who_stays_away_until_the_end_of_grace_is_gone(rooms, csr):
    rooms.again(grace_days=30)
    fleet = Fleet(rooms, 1, csr)
    fleet.use("pump-0")
    fleet.campaigns.start(ADMIN, CampaignKind.INTERMEDIATE)
    fleet.tick(119 * 86_400)
    assert fleet.steps() == {"pump-0": "waiting"}
    fleet.tick(121 * 86_400)
    assert fleet.steps() == {"pump-0": "gone"}


def test_who_was_enrolled_anew_under_the_old_one_waits_again(rooms, fleet):
    campaign = fleet.campaigns.start(ADMIN, CampaignKind.ROOT)
    new = fleet.renew("pump-0", campaign.new)
    fleet.tick(0)
    assert fleet.steps()["pump-0"] == "renewed"
    rooms.identity.revocation.revoke(new.fingerprint, "keyCompromise", "ann")
    rooms.enrolled("pump-0", is_known=True)
    fleet.tick(1)
    assert fleet.steps()["pump-0"] == "waiting"


def test_only_administrators_of_the_installation(fleet):
    for who in (Principal("ann", (DEFAULT_TENANT,)), Principal("bob", None, "operator")):
        with pytest.raises(RejectedError) as refused:
            fleet.campaigns.start(who, CampaignKind.ROOT)
        assert refused.value.code == "forbidden"
