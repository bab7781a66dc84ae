"""Does a simulated device say what a real one would, numbered so that nothing is stored twice?"""

import json

from godwit.contract.ids import parse_device_id
from godwit.sim.device import NS, Sample, encode, epoch_of, make_fleet

START = 1_752_537_600 * NS


def test_a_mixed_fleet_takes_all_profiles_in_turn_with_ids_of_their_own() -> None:
    fleet = make_fleet(30, "mixed", seed=1, started=START)
    assert len({device.device_id for device in fleet}) == 30
    assert {device.profile.name for device in fleet[:4]} == {"weather", "machine", "energy", "cold-chain"}
    assert all(parse_device_id(device.device_id) for device in fleet)
    assert len({(device.place.latitude, device.place.longitude) for device in fleet}) == 30


def test_messages_are_numbered_from_nought_without_a_gap() -> None:
    device = make_fleet(1, "weather", seed=1, started=START)[0]
    messages = [json.loads(device.telemetry(START + step * NS)) for step in range(5)]
    assert [message["seq"] for message in messages] == [0, 1, 2, 3, 4]
    assert len({(message["stream"], message["epoch"]) for message in messages}) == 1
    assert messages[3]["samples"][0]["timestamp"] == START + 3 * NS
    assert messages[3]["metadata"]["uptime"] == 3


def test_a_seed_and_a_start_say_everything() -> None:
    first, again, other = (make_fleet(3, "mixed", seed=seed, started=START) for seed in (7, 7, 8))
    for device, same, different in zip(first, again, other, strict=True):
        message = device.telemetry(START + 60 * NS)
        assert message == same.telemetry(START + 60 * NS)
        assert message != different.telemetry(START + 60 * NS)


def test_a_restarted_fleet_begins_a_new_epoch() -> None:
    before = make_fleet(1, "weather", seed=1, started=START)[0]
    after = make_fleet(1, "weather", seed=1, started=START + 1)[0]
    assert before.epoch != after.epoch
    assert epoch_of("a", 1) == epoch_of("a", 1) != epoch_of("a", 2)


def test_the_battery_falls_and_is_changed() -> None:
    device = make_fleet(1, "weather", seed=1, started=START)[0]
    day = 86_400 * NS
    charge = [
        json.loads(device.telemetry(START + step * day))["samples"][0]["readings"]["battery"]["value"]
        for step in range(100)
    ]
    rises = [step for step in range(1, 100) if charge[step] > charge[step - 1]]
    assert 1 <= len(rises) <= 2
    assert 3 < min(charge) < max(charge) <= 100


def test_values_survive_the_encoding_exactly() -> None:
    value = 74.93588199999998
    message = json.loads(encode("m-1", "e", 5, [Sample(123_456_789, {"temperature": (value, "Cel")})]))
    assert message["samples"] == [
        {"timestamp": 123456789, "readings": {"temperature": {"value": value, "unit": "Cel"}}}
    ]
