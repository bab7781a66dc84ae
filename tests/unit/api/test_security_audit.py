"""The security audit over the API: what is planted is found, by who may know."""

from time import time_ns

import pytest
from starlette.testclient import TestClient

from godwit.server.accounts.principal import Principal

V1 = "/api/v1"
NS = 600 * 1_000_000_000


def found(client: TestClient, **query: str) -> dict:
    answer = client.get(f"{V1}/security/audit", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def codes(document: dict) -> set[str]:
    return {each["code"] for each in document["findings"]}


def client_of(rig, grants: dict[str, str]) -> TestClient:
    token = rig.accounts.tokens.create(Principal("admin"), str(grants), grants=grants, expires=time_ns() + NS).secret
    return TestClient(rig.app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False)


@pytest.fixture
def mill(rig, api: TestClient) -> TestClient:
    api.put(f"{V1}/tenants/mill")
    return client_of(rig, {"mill": "admin"})


def test_what_is_planted_is_found_and_gone_when_it_is_put_right(rig, api: TestClient) -> None:
    assert "claim-endless" not in codes(found(api))
    claim = api.post(f"{V1}/claims", json={"kind": "fleet", "name": "line 4", "lifetimeS": 0}).json()
    document = found(api)
    assert {"claim-endless", "claim-unlimited"} <= codes(document)
    finding = next(each for each in document["findings"] if each["code"] == "claim-endless")
    assert finding["severity"] == "medium"
    assert {"kind": "claim", "name": claim["claimId"], "detail": "line 4: never expires"} in finding["affected"]
    assert finding["why"]
    assert finding["todo"]
    assert document["counts"]["medium"] >= 2
    api.post(f"{V1}/claims/{claim['claimId']}/revoke")
    assert "claim-endless" not in codes(found(api))


def test_a_severity_leaves_out_what_is_less(api: TestClient) -> None:
    assert {each["severity"] for each in found(api, severity="high")["findings"]} <= {"high", "critical"}
    assert api.get(f"{V1}/security/audit", params={"severity": "grave"}).status_code == 422


def test_who_administers_a_tenant_is_told_of_it_and_not_of_the_platform(mill: TestClient, api: TestClient) -> None:
    api.post(f"{V1}/claims", json={"kind": "fleet", "lifetimeS": 0, "tenant": "mill", "name": "mill's"})
    api.post(f"{V1}/claims", json={"kind": "fleet", "lifetimeS": 0, "tenant": "default", "name": "other's"})
    document = found(mill)
    assert "claim-endless" in codes(document)
    assert "other's" not in str(document)
    assert not codes(document) & {"listener-plaintext", "root-key-online", "passphrase-beside-keys"}
    assert "listener-plaintext" in codes(found(api))


def test_who_may_not_put_it_right_is_not_told(rig, api: TestClient) -> None:
    for role in ("viewer", "operator"):
        answer = client_of(rig, {"*": role}).get(f"{V1}/security/audit")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
