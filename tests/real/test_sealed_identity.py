"""Does a device that joins with `--encrypt` meet a policy that wants it, and a device without it end in quarantine?"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.real.device_programs import claim_of, end_all, join, run, values_of

from godwit.contract.ids import DeviceId
from godwit.device.identity import Identity

pytestmark = pytest.mark.real

V1 = "/api/v1"


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """End what a test leaves behind."""
    yield
    end_all()


def put(platform: Any, path: str, document: object) -> None:
    platform.ask("PUT", path, json.dumps(document).encode(), {"Content-Type": "application/json"})


def done(process: Any, given: str | None = None) -> str:
    out, err = process.communicate(given, timeout=60)
    assert process.returncode == 0, (out, err)
    return str(out)


def test_a_policy_is_met_by_who_joins_for_it(platform: Any, tmp_path: Path, eventually: Callable[..., Any]) -> None:
    trust = ("--cafile", str(platform.certificate))
    put(platform, f"{V1}/tenants/default/policy", {"messages": "signed-encrypted"})
    rule = {"ids": "meter-*", "landing": {"configuration": {"intervalS": 10}}}
    put(platform, f"{V1}/enrollment-rules/meters", rule)
    for name, more in (("meter-1", ("--encrypt",)), ("meter-2", ()), ("meter-3", ("--sign",))):
        claim_of(platform, name, tmp_path)
        done(join(platform, name, tmp_path, *trust, *more))
        done(run(platform, name, tmp_path, *more), '{"n": 1}\n{"n": 2}\n')
    assert values_of(platform, "meter-1") == [1, 2]
    kept = {each["deviceId"]: each["code"] for each in platform.json(f"{V1}/quarantine")["items"]}
    assert kept == {"meter-2": "signature-required", "meter-3": "encryption-required"}
    for name in ("meter-2", "meter-3"):
        assert platform.json(f"{V1}/devices/{name}/ledger")["accepted"] == 0

    # the platform's key is another one now, and the device that is told so uses it; and what has joined without
    # keys tells them as soon as it is to use some
    path = f"{V1}/tenants/default/message-keys"
    new = platform.post(path, {"purpose": "agree"})

    def last() -> Any:
        return platform.json(f"{V1}/devices/meter-1/message-keys")["last"]["encryptedTo"]

    assert last() != new["keyId"]
    done(run(platform, "meter-1", tmp_path, "--encrypt"), '{"n": 3}\n')  # to the old one, which counts still
    eventually(lambda: done(run(platform, "meter-1", tmp_path, "--encrypt"), '{"n": 4}\n') and last() == new["keyId"])
    done(run(platform, "meter-2", tmp_path, "--encrypt"), '{"n": 3}\n')
    assert values_of(platform, "meter-2") == [3]
    assert set(values_of(platform, "meter-1")) == {1, 2, 3, 4}
    identity = Identity(tmp_path / "meter-1", DeviceId("meter-1"))
    assert identity.kept.configuration == {"intervalS": 10}
    assert identity.kept.platform is not None
    assert identity.kept.platform.agree_key == new["public"]
    identity.close()
