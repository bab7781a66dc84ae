"""Authorities that wait for their proof: each tenant has room of its own."""

import pytest
from cryptography.hazmat.primitives import serialization

from godwit.contract.errors import RejectedError
from godwit.contract.ids import TenantId
from godwit.server.accounts.principal import Principal
from godwit.server.identity import trusted
from godwit.server.identity.model import AuthorityKind, AuthorityTerms
from godwit.server.identity.trusted import TrustedAuthorities


def test_a_tenant_that_announces_many_authorities_keeps_no_other_from_announcing_its_own(rig, monkeypatch):
    monkeypatch.setattr(trusted, "WAITING_MAX", 3)
    made = [rig.trust() for _ in range(5)]
    pems = [each.certificate.public_bytes(serialization.Encoding.PEM).decode() for each in made]
    with rig.database.write() as connection:  # they are not known yet
        connection.exec_driver_sql("DELETE FROM authorities WHERE tenant = 'acme'")
    room = TrustedAuthorities(rig.database, rig.identity.news)

    def announce(tenant: str, pem: str) -> None:
        who = Principal("anna", (TenantId(tenant),))
        room.begin(who, pem, AuthorityKind.FACTORY, TenantId(tenant), name="", terms=AuthorityTerms())

    for each in pems[:3]:
        announce("acme", each)
    announce("acme", pems[0])  # again is no second one
    with pytest.raises(RejectedError) as refused:
        announce("acme", pems[3])
    assert refused.value.code == "rate-limited"
    announce("default", pems[4])
