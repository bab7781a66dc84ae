"""Does the API tell what is known of clocks, and both times of a reading that was corrected?"""

import json
from time import time_ns

import pytest
from starlette.testclient import TestClient

from godwit.contract.stored import StoredUpTo
from godwit.contract.times import format_time

V1 = "/api/v1"
NS = 1_000_000_000
OFFSET = -3_600 * NS


def send(api: TestClient, device: str, seq: int, **more: object) -> None:
    now = format_time(time_ns() + OFFSET)
    document = {"stream": "m", "epoch": "e", "seq": seq, "sentAt": now, "timestamp": now, "readings": {"t": 1.5}}
    answer = api.post(
        f"{V1}/devices/{device}/telemetry",
        content=json.dumps(document | more),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 204, answer.text


@pytest.fixture
def slow(rig, api: TestClient) -> str:
    """A device whose clock is an hour slow, and that has been compared."""
    if api.get(f"{V1}/devices/slow-1").status_code == 200:
        return "slow-1"
    assert api.post(f"{V1}/devices", json={"deviceId": "slow-1"}).status_code == 201
    send(api, "slow-1", 0)
    told = time_ns()
    sync = [told + OFFSET, told, told, told + OFFSET]
    rig.ingest.clock_drift.offered("slow-1", "", StoredUpTo("m", "e", 0, "", sync[0], told, told))
    send(api, "slow-1", 1, sync=sync)
    return "slow-1"


def test_the_clock_of_a_device(api: TestClient, slow: str) -> None:
    clock = api.get(f"{V1}/devices/{slow}/clock").json()
    assert clock["clock"] == "utc"
    assert abs(clock["offsetNs"] - OFFSET) <= clock["uncertaintyNs"]
    assert clock["driftPpm"] is None, "one exchange says nothing of it"
    assert clock["isCorrected"] is True
    assert clock["measured"].endswith("Z")
    assert clock["stepped"] is None
    assert api.post(f"{V1}/devices", json={"deviceId": "clockless"}).status_code == 201
    assert api.get(f"{V1}/devices/clockless/clock").json() == {"deviceId": "clockless", "measured": None}
    assert api.get(f"{V1}/devices/nobody/clock").status_code == 404


def test_both_times_of_a_corrected_reading_are_told(api: TestClient, slow: str) -> None:
    found = api.get(f"{V1}/devices/{slow}/telemetry", params={"last": "2h"}).json()["columns"]
    assert found["offset"][0] == 0
    assert found["offset"][1] == pytest.approx(OFFSET, abs=NS)
    assert found["time"][1] > found["time"][0]
    for form in ("csv", "arrow", "parquet"):
        answer = api.get(f"{V1}/devices/{slow}/telemetry", params={"last": "2h", "format": form})
        assert answer.status_code == 200
        assert b"offset" in answer.content
    send(api, "clockless", 0)
    assert "offset" not in api.get(f"{V1}/devices/clockless/telemetry", params={"last": "2h"}).json()["columns"]


def test_the_clocks_of_the_fleet(api: TestClient, slow: str) -> None:
    found = api.get(f"{V1}/clocks").json()
    assert [each["deviceId"] for each in found["items"]] == [slow]
    assert found["total"] == 1
    assert found["fleet"]["corrected"] == 1
    assert found["fleet"]["offsetNsMax"] == pytest.approx(-OFFSET, abs=NS)
    assert api.get(f"{V1}/clocks", params={"search": "nothing"}).json()["items"] == []
    assert api.get(f"{V1}/clocks", params={"sort": "drift", "order": "asc", "offset": 1}).json()["items"] == []


@pytest.mark.parametrize("query", ["sort=nothing", "limit=0", "offset=-1", "order=up", "sreach=x"])
def test_what_cannot_be_asked(api: TestClient, query: str) -> None:
    assert api.get(f"{V1}/clocks?{query}").status_code in (400, 422)
