"""Tenants over the API: limited by who may, held to it, removed when nothing is left."""

from starlette.testclient import TestClient

from godwit.server.accounts.principal import Principal

V1 = "/api/v1"


def of_tenant(rig, tenant: str, role: str = "admin") -> TestClient:
    token = rig.accounts.tokens.create(Principal("admin"), f"{tenant} {role}", grants={tenant: role}).secret
    return TestClient(rig.app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False)


def test_a_tenant_is_made_limited_and_removed(rig, api: TestClient) -> None:
    assert api.put(f"{V1}/tenants/mill").status_code == 204
    assert "mill" in api.get(f"{V1}/tenants").json()["items"]
    assert api.get(f"{V1}/tenants/mill").json()["use"] == {
        "devices": 0, "connections": 0, "messagesPerS": 0.0, "retainedBytes": 0, "quarantineBytes": 0,
    }  # fmt: skip
    limited = api.patch(f"{V1}/tenants/mill/quota", json={"devices": 1, "messagesPerS": 5}).json()
    assert (limited["name"], limited["devices"], limited["quota"]["messagesPerS"]) == ("mill", 0, 5)
    assert api.patch(f"{V1}/tenants/mill/quota", json={"messagesPerS": 0}).json()["quota"]["devices"] == 1
    assert api.patch(f"{V1}/tenants/mill/quota", json={"devices": -1}).status_code == 422
    assert api.post(f"{V1}/devices", json={"deviceId": "mill-1", "tenant": "mill"}).status_code == 201
    full = api.post(f"{V1}/devices", json={"deviceId": "mill-2", "tenant": "mill"})
    assert (full.status_code, full.json()["code"]) == (409, "quota-devices")
    in_use = api.delete(f"{V1}/tenants/mill")
    assert (in_use.status_code, in_use.json()["code"]) == (409, "in-use")
    api.delete(f"{V1}/devices/mill-1")
    assert api.delete(f"{V1}/tenants/mill").status_code == 204
    assert api.get(f"{V1}/tenants/mill").status_code == 404
    lines = api.get(f"{V1}/audit", params={"about": "mill"}).json()["items"]
    assert {"tenant.put", "tenant.quota", "tenant.remove"} <= {each["what"] for each in lines}


def test_who_administers_one_tenant_sees_its_quota_and_does_not_change_it(rig, api: TestClient) -> None:
    api.put(f"{V1}/tenants/farm")
    api.patch(f"{V1}/tenants/farm/quota", json={"connections": 9})
    farmer = of_tenant(rig, "farm")
    assert farmer.get(f"{V1}/tenants/farm").json()["quota"]["connections"] == 9
    for answer in (
        farmer.patch(f"{V1}/tenants/farm/quota", json={"connections": 0}), farmer.delete(f"{V1}/tenants/farm"),
        farmer.patch(f"{V1}/tenants/none/quota", json={"connections": 0}), farmer.put(f"{V1}/tenants/more"),
    ):  # fmt: skip
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_requests_of_a_tenant_have_a_rate(rig, api: TestClient) -> None:
    api.put(f"{V1}/tenants/rush")
    api.patch(f"{V1}/tenants/rush/quota", json={"requestsPerS": 2})
    rusher = of_tenant(rig, "rush")
    answers = [rusher.get(f"{V1}/devices") for _ in range(14)]  # a burst is what the rate gives in five seconds
    assert answers[0].status_code == 200
    assert answers[-1].status_code == 429
    assert answers[-1].json()["code"] == "too-many-requests"
    assert answers[-1].headers["retry-after"] == "1"
    assert api.get(f"{V1}/devices").status_code == 200  # who sees all tenants has no tenant's rate
