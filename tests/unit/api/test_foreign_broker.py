"""What EMQX 5 asks over HTTP, as its documentation has it, and what it is told."""

from typing import Any

import pytest
from starlette.testclient import TestClient

AUTHENTICATE, AUTHORIZE = "/api/v1/broker/emqx/authentication", "/api/v1/broker/emqx/authorization"


@pytest.fixture
def password(api: TestClient) -> str:
    """Return the token of a device."""
    api.post("/api/v1/devices", json={"deviceId": "emq-1"})
    return str(api.post("/api/v1/devices/emq-1/tokens", json={"name": "emqx"}).json()["token"])


def asked(password: str, **more: Any) -> dict[str, Any]:
    return {"clientid": "emq-1", "username": "emq-1", "password": password, "peerhost": "192.0.2.7"} | more


def test_a_device_is_let_in_by_its_token_and_may_what_the_contract_says(api: TestClient, password: str) -> None:
    said = api.post(AUTHENTICATE, json=asked(password)).json()
    assert (said["result"], said["is_superuser"]) == ("allow", False)
    identity = said["client_attrs"]["identity"]
    may = {"clientid": "emq-1", "identity": identity}
    own, foreign = "devices/emq-1/telemetry", "devices/emq-2/telemetry"
    told = [
        api.post(AUTHORIZE, json=may | {"action": action, "topic": topic}).json()["result"]
        for action, topic in (
            ("publish", own), ("publish", foreign), ("subscribe", "devices/emq-1/commands"), ("subscribe", "#"),
            ("publish", "devices/emq-1/commands"), ("subscribe", foreign),
        )
    ]  # fmt: skip
    assert told == ["allow", "deny", "allow", "deny", "deny", "deny"]


def test_others_are_not(api: TestClient, password: str) -> None:
    for body in (
        asked("gwd_wrong"),
        asked(password, clientid="emq-2"),
        asked(password, username="emq-2"),
        asked("", cert_pem="rubbish", cert_common_name="emq-1"),
    ):
        answer = api.post(AUTHENTICATE, json=body)
        assert (answer.status_code, answer.json()) == (200, {"result": "deny"}), body
    stranger = {"clientid": "emq-1", "identity": "", "action": "publish", "topic": "devices/emq-1/telemetry"}
    assert api.post(AUTHORIZE, json=stranger).json() == {"result": "deny"}
    lines = api.get("/api/v1/audit?limit=100").json()["items"]
    refused = {(each["what"], each["after"]["code"]) for each in lines if each["what"].startswith("mqtt.")}
    assert refused == {
        ("mqtt.refuse", "credentials-wrong"), ("mqtt.refuse", "client-id-mismatch"), ("mqtt.refuse", "wrong-device"),
        ("mqtt.refuse", "certificate-malformed"), ("mqtt.forbid", "not-authorised"),
    }  # fmt: skip


def test_only_who_may_see_all_tenants_asks(rig: Any, api: TestClient, password: str) -> None:
    api.put("/api/v1/tenants/emqx-tenant")
    made = api.post("/api/v1/tokens", json={"name": "one", "grants": {"emqx-tenant": "admin"}}).json()
    person = TestClient(rig.app, headers={"Authorization": f"Bearer {made['secret']}"})
    for path, body in (
        (AUTHENTICATE, asked(password)),
        (AUTHORIZE, {"clientid": "a", "action": "publish", "topic": "b"}),
    ):
        assert person.post(path, json=body).status_code == 403
    assert TestClient(rig.app).post(AUTHENTICATE, json=asked(password)).status_code == 401
