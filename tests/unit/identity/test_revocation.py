"""The life of a certificate: pending, active at first use, superseded by the next, revoked for good."""

import pytest

from godwit.contract.errors import RejectedError
from godwit.server.identity.model import Certificate, CertificateState


def states(rooms):
    return {each.fingerprint: each.state for each in rooms.issuance.of_device("pump-7")}


def test_from_pending_to_superseded_to_revoked(rooms):
    first, other = rooms.enrolled(), rooms.enrolled("pump-8")
    revocation = rooms.identity.revocation
    revocation.seen(first.fingerprint, 5)
    revocation.seen("ab" * 32)  # of somebody who is not in the registry
    rooms.told.clear()
    assert [each.state for each in revocation.flush()] == [CertificateState.ACTIVE]
    (told,) = rooms.told
    assert (told.fingerprint, told.first_seen) == (first.fingerprint, 5)
    second = rooms.enrolled(is_known=True)
    assert states(rooms) == {first.fingerprint: "active", second.fingerprint: "pending"}
    revocation.seen(second.fingerprint)
    revocation.flush()
    assert states(rooms) == {first.fingerprint: "superseded", second.fingerprint: "active"}
    revocation.seen(first.fingerprint)  # the overlap: it may still come with the old one
    assert revocation.flush() == []
    assert not revocation.has_seen
    revocation.revoke(second.fingerprint, "keyCompromise", "ann")
    again = revocation.revoke(second.fingerprint, "superseded", "ann")
    assert (again.state, again.reason) == ("revoked", "keyCompromise")
    revocation.seen(second.fingerprint)
    assert revocation.flush() == []
    assert rooms.issuance.of_device("pump-8")[0].state == other.state == "pending"


def test_unknown_ones_and_unknown_reasons(rooms):
    made: Certificate = rooms.enrolled()
    for fingerprint, reason, code in (
        ("00" * 32, "superseded", "not-found"),
        (made.fingerprint, "certificateHold", "invalid-reason"),
    ):
        with pytest.raises(RejectedError) as refused:
            rooms.identity.revocation.revoke(fingerprint, reason, "ann")
        assert refused.value.code == code
