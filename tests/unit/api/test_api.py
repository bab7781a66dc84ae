"""Does every route do what it says, and does every refusal say why, in one shape?"""

import io
import json
from time import sleep

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

V1 = "/api/v1"


def problem(answer, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["type"].startswith("urn:")
    assert document["detail"]
    return document


def make(api: TestClient, device: str, **more: object) -> str:
    answer = api.post(f"{V1}/devices", json={"deviceId": device, **more})
    assert answer.status_code == 201, answer.text
    return f"{V1}/devices/{device}"


def send(api: TestClient, where: str, payload: object) -> None:
    answer = api.post(f"{where}/telemetry", content=json.dumps(payload), headers={"content-type": "application/json"})
    assert answer.status_code == 204, answer.text


def test_a_token_is_needed_everywhere_but_health(rig, api: TestClient) -> None:
    nobody = TestClient(rig.app)
    for path, methods in rig.app.openapi()["paths"].items():
        for method in methods:
            answer = nobody.request(
                method, path.replace("{device_id}", "x").replace("{name}", "x").replace("{number}", "1")
            )
            is_open = path.startswith(("/health", "/asyncapi", "/enroll", "/oauth", "/.well-known", "/pki"))
            assert (answer.status_code == 401) != is_open, (method, path, answer.status_code)
            if not is_open:
                problem(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
    assert nobody.get("/health/live").json() == {"status": "alive"}
    assert api.get("/health/ready").json()["status"] == "ready"


def test_a_device_lives(api: TestClient) -> None:
    where = make(
        api, "life-1", name="Pump", tags={"hall": "2"}, location={"name": "Hall 2", "latitude": 1.5, "longitude": 2}
    )
    problem(api.post(f"{V1}/devices", json={"deviceId": "life-1"}), 409, "exists")
    assert api.get(where).json()["location"]["name"] == "Hall 2"
    assert api.patch(where, json={"name": "Pump 2", "lifecycle": "suspended"}).json()["name"] == "Pump 2"
    assert api.get(f"{V1}/devices", params={"tag": "hall:2", "search": "PUMP"}).json()["total"] == 1
    assert api.post(f"{where}/retire").json()["lifecycle"] == "retired"
    assert api.delete(where).json() == {"deviceId": "life-1", "pointsErased": 0}
    problem(api.get(where), 404, "not-found")


def test_lists_page_by_cursor(api: TestClient) -> None:
    for number in range(25):
        make(api, f"page-{number:02d}", deviceType="paged")
    for sort, order in (("deviceId", "asc"), ("created", "desc"), ("name", "asc")):
        seen, cursor = [], None
        while True:
            query = {"type": "paged", "sort": sort, "order": order, "limit": 7} | ({"cursor": cursor} if cursor else {})
            page = api.get(f"{V1}/devices", params=query).json()
            seen += [each["deviceId"] for each in page["items"]]
            cursor = page["cursor"]
            if cursor is None:
                break
        assert sorted(seen) == [f"page-{number:02d}" for number in range(25)]
        assert len(set(seen)) == 25
    problem(api.get(f"{V1}/devices", params={"cursor": "xx"}), 422, "invalid-cursor")


def test_telemetry_in_and_out_in_every_format(api: TestClient) -> None:
    where = make(api, "tele-1")
    for minute in range(10):
        send(
            api,
            where,
            {"timestamp": f"2024-01-15T10:{minute:02d}:00Z", "readings": {"t": minute + 0.5, "n": minute, "s": "x"}},
        )
    span = {"from": "2024-01-15T10:00:00Z", "to": "2024-01-15T11:00:00Z"}
    found = api.get(f"{where}/telemetry", params=span | {"readings": "t"}).json()
    assert found["count"] == 10
    assert found["columns"]["value"] == [minute + 0.5 for minute in range(10)]
    assert found["columns"]["time"][0] == "2024-01-15T10:00:00Z"
    text = api.get(
        f"{where}/telemetry", params=span | {"readings": "t"}, headers={"accept": "text/csv"}
    ).text.splitlines()
    assert text[0] == "time,reading,value,quality,seq"
    assert text[1] == "2024-01-15T10:00:00Z,t,0.5,good,-1"
    arrow = api.get(f"{where}/telemetry", params=span | {"readings": "t", "format": "arrow"}).content
    parquet = api.get(f"{where}/telemetry", params=span | {"readings": "t", "format": "parquet"}).content
    for table in (pa.ipc.open_stream(arrow).read_all(), pq.read_table(io.BytesIO(parquet))):
        assert table["value"].to_pylist() == [minute + 0.5 for minute in range(10)]
    latest = api.get(f"{where}/telemetry/latest").json()["readings"]
    assert (latest["t"]["value"], latest["n"]["value"], latest["s"]["value"]) == (9.5, 9, "x")
    buckets = api.get(
        f"{where}/telemetry", params=span | {"readings": "t", "every": "5m", "aggregate": "avg,max,count"}
    ).json()
    assert buckets["columns"]["avg"] == [2.5, 7.5]
    assert buckets["columns"]["count"] == [5.0, 5.0]
    assert api.get(f"{where}/telemetry", params=span | {"readings": "t", "points": 4}).json()["count"] == 4
    assert api.get(f"{where}/telemetry", params=span | {"limit": 3}).json()["isCut"] is True
    fleet = api.get(f"{V1}/telemetry", params=span | {"reading": "t", "every": "1h", "aggregate": "max"}).json()
    assert fleet["columns"]["max"] == [9.5]
    ledger = api.get(f"{where}/ledger").json()
    assert (ledger["messages"], ledger["accepted"], ledger["readings"], ledger["late"]) == (10, 10, 30, 0)
    assert len(api.get(f"{where}/messages").json()["items"]) == 8


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"from": "yesterday"}, "invalid-time"),
        ({"from": "2024-01-02T00:00:00Z", "to": "2024-01-01T00:00:00Z"}, "invalid-time"),
        ({"every": "5 minutes"}, "invalid-duration"),
        ({"last": "99999999d"}, "invalid-duration"),
        ({"every": "1s", "last": "9000d"}, "query-too-large"),
        ({"every": "1h", "aggregate": "median"}, "invalid-aggregate"),
        ({"limit": "0"}, "invalid-request"),
        ({"format": "xml"}, "invalid-request"),
        ({"reading": "t"}, "unknown-parameter"),
    ],
)
def test_bad_queries_say_what_is_wrong(api: TestClient, query: dict, code: str) -> None:
    if api.get(f"{V1}/devices/query-1").status_code == 404:
        send(api, make(api, "query-1"), {"t": 1.5})
    problem(api.get(f"{V1}/devices/query-1/telemetry", params=query), 422, code)


def test_what_cannot_be_accepted_is_kept_and_can_be_replayed(api: TestClient) -> None:
    api.put(
        f"{V1}/types/oven", json={"readings": [{"name": "t", "unit": "Cel", "maximum": 100, "outside": "quarantine"}]}
    )
    where = make(api, "oven-1", deviceType="oven")
    answer = api.post(f"{where}/telemetry", json={"timestamp": "2024-01-15T10:00:00Z", "readings": {"t": 150.0}})
    problem(answer, 422, "out-of-range")
    problem(api.post(f"{where}/telemetry", content=b"{"), 422, "malformed-json")
    problem(api.post(f"{where}/telemetry", json={"deviceId": "other", "t": 1}), 422, "device-mismatch")
    kept = api.get(f"{V1}/quarantine", params={"deviceId": "oven-1"}).json()["items"]
    assert [each["code"] for each in kept] == ["device-mismatch", "malformed-json", "out-of-range"]
    number = kept[2]["number"]
    assert api.get(f"{V1}/quarantine/{number}").json()["payloadBase64"]
    assert api.post(f"{V1}/quarantine/{number}/replay").json()["code"] == "out-of-range"
    api.put(f"{V1}/types/oven", json={"readings": [{"name": "t", "unit": "Cel", "maximum": 200}]})
    sleep(0.05)  # the change is told to the hot path after its commit
    assert api.post(f"{V1}/quarantine/{number}/replay").json() == {
        "accepted": 1,
        "duplicate": 0,
        "code": "",
        "detail": "",
    }
    problem(api.get(f"{V1}/quarantine/{number}"), 404, "not-found")
    assert api.get(f"{where}/telemetry/latest").json()["readings"]["t"]["value"] == 150.0
    assert api.get(f"{where}/ledger").json()["quarantined"] == {
        "out-of-range": 1,
        "malformed-json": 1,
        "device-mismatch": 1,
    }
    assert api.post(f"{V1}/quarantine/purge", json={"deviceId": "oven-1"}).json() == {"purged": 2}
    problem(api.post(f"{V1}/quarantine/purge", json={}), 422, "invalid-request")


def test_gaps_losses_clones_and_late_data_are_told(api: TestClient) -> None:
    where = make(api, "gappy-1")

    def say(seq: int, minute: int, value: float = 1.0) -> None:
        at = f"2024-01-15T10:{minute:02d}:00Z"
        send(api, where, {"stream": "s", "epoch": "e", "seq": seq, "timestamp": at, "readings": {"t": value}})

    say(0, 0)
    say(5, 30)
    say(2, 20)
    say(5, 30, 2.0)
    send(api, where, {"stream": "s", "epoch": "e", "gaps": [{"first": 3, "last": 4, "reason": "evicted"}]})
    ledger = api.get(f"{where}/ledger").json()
    assert (ledger["gaps"], ledger["lost"], ledger["cloned"], ledger["late"]) == (1, {"evicted": 2}, 1, 1)
    (clone,) = ledger["clones"]
    assert (clone["keptAs"], clone["first"], clone["samples"]) == ("e~2", 5, 1)
    items = api.get(f"{where}/gaps").json()["items"]
    assert [(each["first"], each["last"], each["state"], each["reason"]) for each in items] == [
        (1, 1, "missing", ""),
        (3, 4, "lost", "evicted"),
    ]
    events = api.get(f"{where}/events").json()["items"]
    assert '"clone-detected"' in events[0]["payload"]
    problem(api.get(f"{V1}/devices/nobody/gaps"), 404, "not-found")


def test_erasing_removes_the_data(api: TestClient) -> None:
    where = make(api, "gone-1")
    send(api, where, {"timestamp": "2024-01-15T10:00:00Z", "readings": {"t": 1.5, "h": 2.5}})
    assert api.delete(where).json()["pointsErased"] == 2
    sleep(0.05)
    where = make(api, "gone-1")
    assert api.get(f"{where}/telemetry/latest").json()["readings"] == {}


def test_types_and_groups(api: TestClient) -> None:
    assert (
        api.put(f"{V1}/types/fan", json={"readings": [{"name": "rpm"}], "retentionDays": 30}).json()["retentionDays"]
        == 30
    )
    make(api, "fan-1", deviceType="fan")
    problem(api.delete(f"{V1}/types/fan"), 409, "in-use")
    assert api.put(f"{V1}/groups/north", json={"description": "d"}).json()["size"] == 0
    assert api.post(f"{V1}/groups/north/devices", json={"deviceIds": ["fan-1"]}).json() == {"size": 1}
    problem(api.post(f"{V1}/groups/north/devices", json={"deviceIds": ["nobody"]}), 404, "not-found")
    assert api.get(f"{V1}/devices", params={"group": "north"}).json()["total"] == 1
    assert api.post(f"{V1}/groups/north/devices/remove", json={"deviceIds": ["fan-1"]}).json() == {"size": 0}
    assert api.delete(f"{V1}/groups/north").status_code == 204
    problem(api.delete(f"{V1}/groups/north"), 404, "not-found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"deviceId": "a b"},
        {"deviceId": "x", "location": {"latitude": 91}},
        {"deviceId": "x", "colour": "red"},
        [],
        "x",
    ],
)
def test_a_bad_body_names_its_field(api: TestClient, body: object) -> None:
    assert problem(api.post(f"{V1}/devices", json=body), 422, "invalid-request")["fields"]


def test_unknown_routes_and_methods_are_problems_too(api: TestClient) -> None:
    problem(api.get(f"{V1}/nothing"), 404, "not-found")
    problem(api.delete("/health/live"), 405, "method-not-allowed")
    problem(api.get(f"{V1}/devices/%00"), 404, "not-found")
    too_large = api.post(f"{make(api, 'large-1')}/telemetry", content=b" " * 1_100_000)
    problem(too_large, 413, "payload-too-large")


def test_live_news(rig, api: TestClient) -> None:
    where = make(api, "live-1")
    make(api, "live-2")
    hello = {"token": rig.tokens.admin_token, "devices": ["live-1"]}
    with api.websocket_connect(f"{V1}/live") as socket:
        socket.send_json(hello)
        assert socket.receive_json() == {"type": "ready"}
        send(api, f"{V1}/devices/live-2", {"t": 1.5})
        send(api, where, {"t": 2.5})
        (item,) = socket.receive_json()["items"]
        assert (item["deviceId"], item["reading"], item["value"]) == ("live-1", "t", 2.5)
    for headers, said in (({"origin": "http://evil.example"}, hello), ({}, {"token": "wrong"})):
        nobody = TestClient(rig.app, headers=headers)
        with pytest.raises(WebSocketDisconnect), nobody.websocket_connect(f"{V1}/live") as socket:  # noqa: PT012
            socket.send_json(said)
            socket.receive_json()


def test_metrics_and_documents(api: TestClient) -> None:
    text = api.get("/metrics").text
    assert "godwit_ready 1" in text
    assert 'godwit_sample_age_seconds{quantile="0.95"} ' in text
    assert "\ngodwit_devices_catching_up " in text
    assert 'godwit_station_seconds{station="' in text or "godwit_messages_total" in text
    assert api.get("/asyncapi.json").json()["asyncapi"] == "3.0.0"
    assert api.get("/asyncapi").text.startswith("<!doctype html>")
    assert api.get("/openapi.json").json()["openapi"].startswith("3.")
    assert set(api.get(f"{V1}/stats").json()) == {
        "version", "started", "ingest", "freshness", "broker", "store", "fleet"
    }  # fmt: skip
