"""Does every route say which role it needs, and keep to it? Users, tokens and the audit log over the API."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from godwit.server.accounts.principal import Principal
from godwit.server.api.access import role_of
from godwit.server.api.strict import StrictRoute

sys.path.insert(0, str(Path(__file__).parent))
from open_routes import OPEN

V1 = "/api/v1"
OWN = {"/api/v1/account/password", "/api/v1/sessions/{sessionId}", "/api/v1/tokens", "/api/v1/tokens/{tokenId}"}
"""One's own matters: whoever may look may change them."""
SOCKETS = {"/api/v1/live", "/api/v1/trace"}
"""Ask for the token in their first message; test_api and test_isolation look at them."""


def routes(rig: Any) -> Iterator[Any]:
    """Return all routes, those of included routers too."""
    left = list(rig.app.routes)
    while left:
        each = left.pop()
        inner = getattr(each, "routes", None) or getattr(getattr(each, "original_router", None), "routes", None)
        if inner:
            left.extend(inner)
        else:
            yield each


def client(rig: Any, token: str) -> TestClient:
    return TestClient(rig.app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False)


def made(rig: Any, role: str, **more: Any) -> TestClient:
    return client(rig, rig.accounts.tokens.create(Principal("admin"), role, grants={"*": role}, **more).secret)


def test_every_route_declares_a_role(rig) -> None:
    seen = 0
    for route in routes(rig):
        if isinstance(route, WebSocketRoute) or type(route).__name__ == "APIWebSocketRoute":
            assert route.path in SOCKETS, f"{route.path} is a socket that no test knows"
            continue
        if not isinstance(route, APIRoute):
            assert route.path in OPEN, f"{route.path} is served to everybody"
            continue
        assert isinstance(route, StrictRoute), f"{route.path} is not a StrictRoute: nobody asks who asks"
        role = role_of(route.dependant)
        assert role is not None or route.path in OPEN, f"{route.path} declares no role"
        if role == "viewer" and route.methods - {"GET", "HEAD"}:
            assert route.path in OWN, f"{route.methods} {route.path} lets viewers change something"
        seen += 1
    assert seen > 50


def test_a_route_without_a_role_does_not_come_up() -> None:
    router = APIRouter(route_class=StrictRoute)
    with pytest.raises(RuntimeError, match="says no role"):

        @router.get("/api/v1/open")
        def served_to_everybody() -> None: ...


def test_roles_and_scopes(rig, api) -> None:
    viewer, operator = made(rig, "viewer"), made(rig, "operator")
    new = {"deviceId": "roles-1"}
    assert viewer.post(f"{V1}/devices", json=new).json()["code"] == "forbidden"
    assert viewer.post(f"{V1}/devices", content=b"{not json").status_code == 403  # before it is read
    assert operator.post(f"{V1}/devices", json=new).status_code == 201
    assert viewer.get(f"{V1}/devices/roles-1").status_code == 200
    assert operator.put(f"{V1}/tenants/roles").status_code == 403
    assert operator.get(f"{V1}/users").status_code == 403
    reader = made(rig, "admin", scopes=["devices:read"])
    assert reader.get(f"{V1}/devices/roles-1").status_code == 200
    for answer in (
        reader.patch(f"{V1}/devices/roles-1", json={"name": "x"}), reader.get(f"{V1}/devices/roles-1/telemetry"),
        reader.get(f"{V1}/users"), reader.get("/metrics"),
    ):  # fmt: skip
        assert (answer.status_code, answer.json()["code"]) == (403, "scope-missing")
    assert client(rig, "").get(f"{V1}/devices?nonsense=1").status_code == 401  # before anything else


def test_roles_that_differ_between_tenants(rig, api) -> None:
    for tenant in ("mixed-a", "mixed-b"):
        api.put(f"{V1}/tenants/{tenant}")
        api.post(f"{V1}/devices", json={"deviceId": f"{tenant}-1", "tenant": tenant})
    grants = {"mixed-a": "operator", "mixed-b": "viewer"}
    mixed = client(rig, rig.accounts.tokens.create(Principal("admin"), "mixed", grants=grants).secret)
    assert {each["deviceId"] for each in mixed.get(f"{V1}/devices").json()["items"]} == {"mixed-a-1", "mixed-b-1"}
    assert mixed.patch(f"{V1}/devices/mixed-a-1", json={"name": "x"}).status_code == 200
    assert mixed.patch(f"{V1}/devices/mixed-b-1", json={"name": "x"}).json()["code"] == "forbidden"
    assert mixed.patch(f"{V1}/devices/roles-1", json={"name": "x"}).json()["code"] == "not-found"
    assert mixed.post(f"{V1}/devices", json={"deviceId": "m", "tenant": "mixed-b"}).json()["code"] == "forbidden"


def test_users_over_the_api(rig, api) -> None:
    user = {"name": "zoe", "grants": {"*": "operator"}, "password": "nine godwits fly north"}
    answer = api.post(f"{V1}/users", json=user)
    assert answer.status_code == 201
    assert "password" not in json.dumps(answer.json()).replace("hasPassword", "")
    assert api.post(f"{V1}/users", json=user).json()["code"] == "exists"
    assert api.post(f"{V1}/users", json=user | {"name": "z2", "password": "x"}).json()["code"] == "weak-password"
    assert api.post(f"{V1}/users", json=user | {"name": "z3", "grants": {"*": "king"}}).status_code == 422
    changed = api.patch(f"{V1}/users/zoe", json={"grants": {"acme": "viewer"}, "disabled": True}).json()
    assert (changed["grants"], changed["disabled"]) == ({"acme": "viewer"}, True)
    assert api.post(f"{V1}/users/zoe/password", json={"password": "a new one for zoe"}).status_code == 204
    assert [each["name"] for each in api.get(f"{V1}/users").json()["items"]] == ["zoe"]
    assert api.delete(f"{V1}/users/zoe").status_code == 204
    assert api.get(f"{V1}/users/zoe").json()["code"] == "not-found"


def test_tokens_over_the_api(rig, api) -> None:
    answer = api.post(f"{V1}/tokens", json={"name": "ci", "grants": {"*": "viewer"}, "scopes": ["devices:read"]})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    secret, number = answer.json()["secret"], answer.json()["tokenId"]
    mine = client(rig, secret)
    assert mine.get(f"{V1}/devices").status_code == 200
    assert mine.get(f"{V1}/tokens").status_code == 403
    assert secret not in api.get(f"{V1}/tokens").text
    assert api.delete(f"{V1}/tokens/{number}").status_code == 204
    assert mine.get(f"{V1}/devices").status_code == 401
    whole = made(rig, "viewer")
    assert whole.get(f"{V1}/account").json()["grants"] == {"*": "viewer"}
    assert whole.post(f"{V1}/tokens", json={"name": "x", "grants": {"*": "admin"}}).json()["code"] == "forbidden"
    for own in (whole.get(f"{V1}/sessions"), whole.post(f"{V1}/account/password", json={"old": "a", "new": "b"})):
        assert own.json()["code"] == "forbidden"  # a program does not act for a person


def test_the_audit_log_tells_who_what_and_from_where(rig, api) -> None:
    api.post(f"{V1}/devices", json={"deviceId": "audited", "name": "=1+1"})
    api.patch(f"{V1}/devices/audited", json={"name": "after"})
    made(rig, "viewer").delete(f"{V1}/devices/audited")
    lines = api.get(f"{V1}/audit", params={"about": "audited"}).json()["items"]
    assert [each["what"] for each in lines] == ["device.change", "device.create"]
    assert lines[0]["before"]["name"] == "=1+1"
    assert lines[0]["after"]["name"] == "after"
    assert lines[0]["address"] == "testclient"
    (refused,) = api.get(
        f"{V1}/audit", params={"what": "request.refuse", "about": f"DELETE {V1}/devices/audited"}
    ).json()["items"]
    assert (refused["who"], refused["after"]) == ("admin/viewer", {"code": "forbidden"})
    assert api.get(f"{V1}/audit", params={"from": "2040-01-01T00:00:00Z"}).json()["items"] == []
    assert api.get(f"{V1}/audit", params={"from": "2000", "to": "1999"}).status_code == 422


def test_the_audit_log_by_pages_and_as_a_file(rig, api) -> None:
    for number in range(7):
        api.patch(f"{V1}/devices/audited", json={"name": f"page {number}"})
    numbers: list[int] = []
    before: dict[str, int] = {}
    while True:
        page = api.get(f"{V1}/audit", params={"what": "device.", "who": "admin", "limit": 3} | before).json()
        numbers += [each["number"] for each in page["items"]]
        if page["before"] is None:
            break
        before = {"before": page["before"]}
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == len(numbers) > 8
    wanted = {"what": "device.", "who": "admin"}
    lines = api.get(f"{V1}/audit/export", params=wanted).text.splitlines()
    assert [json.loads(each)["number"] for each in lines] == numbers
    answer = api.get(f"{V1}/audit/export", params=wanted | {"format": "csv"})
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(each["number"]) for each in rows] == numbers
    assert json.loads(rows[0]["after"])["name"] == "page 6"


def test_refusals_of_a_thief_are_told_and_written(rig, api) -> None:
    session = rig.accounts.redeem(rig.accounts.issue_sign_in(), agent="Mozilla/5.0 (X11; Linux) Firefox/133.0")
    answer = client(rig, session).get(f"{V1}/devices")
    assert (answer.status_code, answer.json()["code"]) == (401, "session-stolen")
    lines = api.get(f"{V1}/audit", params={"what": "session.refuse"}).json()["items"]
    assert lines[0]["after"] == {"code": "session-stolen"}


def test_headers_of_the_api(rig, api) -> None:
    headers = api.get(f"{V1}/devices").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "strict-transport-security" not in headers
    secure = TestClient(rig.app, base_url="https://godwit.test").get("/health/live").headers
    assert secure["strict-transport-security"] == "max-age=31536000"


def test_an_open_socket_ends_with_its_token(rig, api) -> None:
    made_token = rig.accounts.tokens.create(Principal("admin"), "live", grants={"*": "viewer"})
    with client(rig, made_token.secret).websocket_connect(f"{V1}/live") as socket:
        socket.send_text("{}")
        assert socket.receive_json() == {"type": "ready"}
        assert api.delete(f"{V1}/tokens/{made_token.token.token_id}").status_code == 204
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json()
    assert (ended.value.code, ended.value.reason) == (1008, "unauthorized")
