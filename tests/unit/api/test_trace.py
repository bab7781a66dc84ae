"""Does the trace tell what each station made of a message, and what became of it?"""

import json

import pytest
from starlette.websockets import WebSocketDisconnect


def events(socket, until="committed"):
    found = []
    while not found or found[-1]["kind"] != until:
        found += json.loads(socket.receive_text()).get("events", [])
    return found


@pytest.fixture
def follow(api):
    def connect(device_id):
        api.post("/api/v1/devices", json={"deviceId": device_id})
        socket = api.websocket_connect(f"/api/v1/trace?device={device_id}")
        socket.__enter__()
        assert json.loads(socket.receive_text()) == {"type": "ready"}
        open_sockets.append(socket)
        return socket

    open_sockets = []
    yield connect
    for each in open_sockets:
        each.close()
        each.__exit__(None, None, None)


def send(api, device_id, document):
    answer = api.post(f"/api/v1/devices/{device_id}/telemetry", json=document)
    assert answer.status_code != 404, answer.text


def test_every_station_and_the_commit_are_told(api, follow):
    socket = follow("traced-1")
    send(api, "traced-1", {"messageId": "a", "sensors": {"t": 1.5, "h": 2}})
    found = events(socket)
    assert [(each["name"], each["outcome"]) for each in found[:-1]] == [
        (name, "passed") for name in ("receive", "decode", "admit", "sift", "lay")
    ]
    assert {each["message"] for each in found} == {found[0]["message"]}
    assert found[0]["payload"].startswith('{"messageId"')
    committed = found[-1]
    assert (committed["outcome"], committed["rows"], committed["samples"]) == ("stored", 2, 1)
    assert committed["commit"] > 0
    assert committed["micros"] > 0
    send(api, "traced-1", {"messageId": "a", "sensors": {"t": 1.5, "h": 2}})
    again = events(socket)
    assert (again[-1]["outcome"], again[-1]["rows"], again[-1]["duplicates"]) == ("duplicate", 0, 1)


def test_a_refusal_is_told_at_its_station_with_its_code(api, follow):
    socket = follow("traced-2")
    send(api, "traced-2", {"deviceId": "another", "sensors": {"t": 1}})
    found = events(socket)
    assert [(each["name"], each["outcome"]) for each in found[-2:-1]] == [("admit", "device-mismatch")]
    assert found[-1]["outcome"] == "quarantined"
    assert found[-1]["detail"].startswith("device-mismatch: ")


def test_nobody_is_followed_once_the_socket_is_gone(api, rig, follow):
    socket = follow("traced-3")
    assert rig.trace.devices == {"traced-3"}
    socket.close()
    send(api, "traced-3", {"sensors": {"t": 1}})
    for _ in range(100):
        if not rig.trace.devices:
            break
        send(api, "traced-3", {"sensors": {"t": 1}})
    assert rig.trace.devices == frozenset()


@pytest.mark.parametrize("query", ["", "?device=no%20id"])
def test_an_impossible_device_is_refused(api, query):
    with pytest.raises(WebSocketDisconnect), api.websocket_connect(f"/api/v1/trace{query}") as socket:
        socket.receive_text()


def test_a_token_is_needed(api, rig):
    path = "/api/v1/trace?device=traced-1"
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        api.websocket_connect(path, headers={"Authorization": "Bearer no"}) as socket,
    ):
        socket.receive_text()
    assert refused.value.reason == "unauthorized"
    with api.websocket_connect(path, headers={"Authorization": ""}) as socket:
        socket.send_text(json.dumps({"token": rig.tokens.admin_token}))
        assert json.loads(socket.receive_text()) == {"type": "ready"}
