"""What a device costs: memory and CPU at ten samples a second, catching up after a day, a burst, the radio's day.

The device is a process of its own that measures itself; the platform is a real one. Catching up stands beside the same
samples as one JSON message each, at QoS 1 with as many under way as the server takes: what a plain client does.
"""

import argparse
import asyncio
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # the process of the device is measured: it imports nothing but the SDK
    from bench.process import Target

GOAL_RSS_MB, GOAL_CPU_PERCENT = 40.0, 1.0
GOAL_CATCH_UP_S, GOAL_BYTES_SHARE = 10.0, 0.35
DAY: Final = 86_400
RATE: Final = 10.0


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def sample(number: int) -> dict[str, float]:
    """Return the readings of one second: five slow curves with two decimals, as machines have them."""
    t = number / 3_600
    return {
        "temperature": round(55 + 8 * math.sin(t) + (number * 7919 % 13) / 20, 2),
        "vibration": round(2.1 + math.sin(t * 3) + (number * 104_729 % 17) / 50, 2),
        "pressure": round(4.2 + 0.3 * math.cos(t), 2),
        "current": round(11 + 2 * math.sin(t / 2) + (number * 31 % 11) / 30, 2),
        "speed": 1_480 + number * 17 % 9,
    }


# --- in the process of the device ------------------------------------------------------------------------------------


async def steady(port: int, spool: Path, seconds: float) -> dict[str, float]:
    """Send ten samples a second; returns memory and CPU."""
    from godwit.device import Device  # noqa: PLC0415 - what is measured

    async with Device("bench-device", port=port, spool=spool, health_every_s=60) as device:
        begin, used, count = time.perf_counter(), None, 0
        while (passed := time.perf_counter() - begin) < seconds:
            if used is None and passed > 1:
                used, since = time.process_time(), time.perf_counter()
            await device.send(sample(count))
            count += 1
            await asyncio.sleep(max(0.0, begin + count / RATE - time.perf_counter()))
        assert used is not None
        cpu = (time.process_time() - used) / (time.perf_counter() - since)
        rss = _rss_bytes()
        await device.flush(10)
    return {"samples": count, "cpu_percent": 100 * cpu, "rss_mb": rss / 1e6}


async def catch_up(port: int, spool: Path, count: int) -> dict[str, float]:
    """Take a day of samples with the network away, then connect and wait until all are stored."""
    from godwit.device import Device  # noqa: PLC0415
    from godwit.mqtt.client import MqttClient  # noqa: PLC0415

    first = time.time() - count
    async with Device("bench-backlog", port=1, spool=spool, health_every_s=None) as device:
        begin = time.process_time()
        for number in range(count):
            await device.send(sample(number), at=first + number)
        taken = time.process_time() - begin
    written = 0
    flush = MqttClient._flush  # noqa: SLF001 - every byte leaves through it

    def counted(client: Any) -> None:
        nonlocal written
        transport = client._transport  # noqa: SLF001
        if transport is not None and not hasattr(transport, "counted"):
            write = transport.write

            def count_and_write(data: bytes) -> None:
                nonlocal written
                written += len(data)
                write(data)

            class Counting:
                counted = True
                write = staticmethod(count_and_write)

                def __getattr__(self, name: str) -> Any:
                    return getattr(transport, name)

            client._transport = Counting()  # noqa: SLF001
        flush(client)

    MqttClient._flush = counted  # type: ignore[method-assign]  # noqa: SLF001
    begin, cpu = time.perf_counter(), time.process_time()
    async with Device("bench-backlog", port=port, spool=spool, health_every_s=None) as device:
        await device.flush(600)
        seconds, used = time.perf_counter() - begin, time.process_time() - cpu
    return {"samples": count, "take_cpu_s": taken, "seconds": seconds, "cpu_s": used, "bytes": written}


async def plain(port: int, count: int) -> dict[str, float]:
    """Send the same samples as one JSON message each."""
    import msgspec  # noqa: PLC0415

    from godwit.contract.times import format_time  # noqa: PLC0415
    from godwit.mqtt import packets as p  # noqa: PLC0415
    from godwit.mqtt.client import MqttClient  # noqa: PLC0415
    from godwit.mqtt.client_session import ClientSession, Delivered  # noqa: PLC0415

    done, left, first = asyncio.Event(), count, time.time_ns() - count * 10**9
    written = 0

    def delivered(_: Delivered) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    session = ClientSession(p.Connect("bench-plain"))
    client = await MqttClient.connect("127.0.0.1", port, session.connect, session=session, on_delivered=delivered)
    begin, cpu = time.perf_counter(), time.process_time()
    for number in range(count):
        said = {"timestamp": format_time(first + number * 10**9), "readings": sample(number)}
        publish = p.Publish("devices/bench-plain/telemetry", msgspec.json.encode(said), 1)
        session.publish(publish)
        written += len(publish.payload) + len(publish.topic) + 7
        if number % 100 == 0:
            client.flush_soon()
            while session.inflight > 2_000:  # noqa: ASYNC110 - paces itself
                await asyncio.sleep(0.001)
    client.flush_soon()
    await done.wait()
    seconds, used = time.perf_counter() - begin, time.process_time() - cpu
    await client.disconnect()
    return {"samples": count, "seconds": seconds, "cpu_s": used, "bytes": written}


async def burst(port: int, spool: Path, rate: float, seconds: float) -> dict[str, float]:
    """Send at ten times the rate for a while, then at the rate until drained; returns depth and freshness."""
    from godwit.device import Device  # noqa: PLC0415

    deepest = 0
    async with Device("bench-burst", port=port, spool=spool, health_every_s=None) as device:
        begin, count = time.perf_counter(), 0
        before = _rss_bytes()
        while (passed := time.perf_counter() - begin) < seconds:
            due = int(passed * rate * 10)
            while count < due:
                await device.send(sample(count))
                count += 1
            deepest = max(deepest, device.depth.items)
            await asyncio.sleep(0.002)
        oldest = device.depth.oldest
        age = 0.0 if oldest is None else time.time() - oldest / 1e9
        begin = time.perf_counter()
        await device.flush(120)
        drained = time.perf_counter() - begin
        grown = _rss_bytes() - before
    return {
        "samples": count, "deepest": deepest, "age_after_burst_s": age, "drained_s": drained, "grown_mb": grown / 1e6,
    }  # fmt: skip


# --- in the process of the bench -------------------------------------------------------------------------------------


def _device(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.device", *(str(each) for each in arguments)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=900)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _count(target: "Target", device: str) -> int:
    ledger = json.loads(target.get(f"/api/v1/devices/{device}/ledger"))
    assert ledger["gaps"] == 0, ledger
    return int(ledger["accepted"])


def run(directory: Path, *, quick: bool) -> dict[str, object]:
    """Run everything about a device."""
    from bench.process import godwit  # noqa: PLC0415

    count, seconds = (DAY // 20, 4) if quick else (DAY, 30)
    with godwit(directory / "device") as target:
        quiet = _device("steady", target.port, directory / "steady.spool", seconds)
        backlog = _device("catch-up", target.port, directory / "backlog.spool", count)
        json_each = _device("plain", target.port, count)
        wave = _device("burst", target.port, directory / "burst.spool", 200, 6 if quick else 60)
        stored = {name: _count(target, f"bench-{name}") for name in ("device", "backlog", "plain", "burst")}
    assert stored == {
        "device": quiet["samples"], "backlog": count, "plain": count, "burst": wave["samples"],
    }, stored  # fmt: skip
    share = backlog["bytes"] / json_each["bytes"]
    return {
        "steady": {**quiet, "goal_cpu_percent": GOAL_CPU_PERCENT, "goal_rss_mb": GOAL_RSS_MB},
        "catch_up": [
            {"who": "device", **_row(backlog), "bytes_share": share, "goal_s": GOAL_CATCH_UP_S,
             "goal_share": GOAL_BYTES_SHARE},
            {"who": "one JSON message each", **_row(json_each), "bytes_share": 1.0, "goal_s": None,
             "goal_share": None},
        ],
        "burst": {"rate_per_s": 200, **wave},
        "radio": list(radio()),
    }  # fmt: skip


def _row(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("samples", "seconds", "cpu_s", "bytes")}


# --- the radio's day, in virtual time --------------------------------------------------------------------------------

HANDSHAKE_BYTES: Final = 3_200
"""TLS 1.3 with a certificate of its own, and TCP, both ways."""
CONNECT_BYTES: Final = 450
"""CONNECT with a will, CONNACK, SUBSCRIBE, SUBACK, two status messages and their answers."""
KEEP_ALIVE_BYTES: Final = 2 * 2 * 60
ACK_BYTES: Final = 60
UPLOAD_BYTES_S: Final = 20_000
SET_UP_S: Final = 2.5
"""From sleep to a connection: attach, TCP, TLS and MQTT at 150 ms a turn."""
TAIL_S: Final = 5.0
"""How long a modem stays awake after the last byte (LTE-M, inactivity timer)."""
EVERY_S: Final = 10


def radio() -> Iterator[dict[str, object]]:
    """Yield the radio-on seconds and bytes of a day per policy, with a sample of five readings every 10 s."""
    from godwit.device.power import ALWAYS_ON, PowerPolicy, Window  # noqa: PLC0415

    policies = {
        "always on": ALWAYS_ON,
        "every 5 min": PowerPolicy(every_s=300),
        "every 30 min": PowerPolicy(every_s=1_800),
        "500 samples": PowerPolicy(samples=500),
        "hourly, listen every 15 min": PowerPolicy(every_s=3_600, listen_s=900),
        "02:00-03:00 only": PowerPolicy(windows=(Window.of("02:00-03:00"),)),
    }
    base: dict[str, float] = {}
    for name, policy in policies.items():
        on_s, sent, connects = _day(policy)
        base = base or {"on": on_s, "bytes": sent}
        yield {
            "policy": name, "connects": connects, "radio_on_s": on_s, "bytes": sent,
            "on_share": on_s / base["on"], "bytes_share": sent / base["bytes"],
        }  # fmt: skip


def _day(policy: Any) -> tuple[float, int, int]:
    """Live through two days, and count the second."""
    from godwit.device.power import Waiting  # noqa: PLC0415

    on_s, sent, connects, waiting, since_off, quiet = 0.0, 0, 0, 0, 1e6, 0.0
    is_on, busy_until, second_day = False, 0.0, False
    for now in range(2 * DAY):
        if now == DAY:
            on_s, sent, connects, second_day = 0.0, 0, 0, True
        waiting += now % EVERY_S == 0
        asked = Waiting(
            waiting, float(waiting * EVERY_S), False, 0.0 if now < busy_until else quiet, 0.0 if is_on else since_off  # noqa: FBT003
        )  # fmt: skip
        decision = policy.decide(asked, float(now))
        if decision.is_on and not is_on:
            is_on, connects = True, connects + 1
            sent += HANDSHAKE_BYTES + CONNECT_BYTES
            busy_until, quiet = now + SET_UP_S, 0.0
        elif not decision.is_on and is_on:
            is_on, since_off = False, 0.0
            on_s += TAIL_S
        if is_on:
            on_s += 1
            quiet += 1
            if waiting:
                size = _message_bytes(waiting)
                sent += size + ACK_BYTES
                busy_until, quiet, waiting = max(busy_until, now) + size / UPLOAD_BYTES_S, 0.0, 0
            elif policy.is_always_on and now % 60 == 0:
                sent += KEEP_ALIVE_BYTES
        else:
            since_off += 1
    assert second_day
    return on_s, sent, connects


def _message_bytes(samples: int) -> int:
    from godwit.contract.compression import Compression, compress  # noqa: PLC0415
    from godwit.device.telemetry import encode_message, encode_readings  # noqa: PLC0415

    total = 0
    for start in range(0, samples, 500):
        count = min(500, samples - start)
        items = [(1_790_000_000_000_000_000 + n * 10**10, encode_readings(sample(n * 10))) for n in range(count)]
        message = encode_message("main", "9f3c2a7be1d04c55", start, items, {"sentAt": 1_790_000_000_000_000_000})
        total += len(compress(message, Compression.DEFLATE)) + 40 + 29  # topic and packet; TLS record
    return total


def main() -> None:
    """Be the device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("steady", "catch-up", "plain", "burst"))
    parser.add_argument("port", type=int)
    parser.add_argument("rest", nargs="*")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    port, rest = options.port, options.rest
    if options.what == "steady":
        work = steady(port, Path(rest[0]), float(rest[1]))
    elif options.what == "catch-up":
        work = catch_up(port, Path(rest[0]), int(rest[1]))
    elif options.what == "plain":
        work = plain(port, int(rest[0]))
    else:
        work = burst(port, Path(rest[0]), float(rest[1]), float(rest[2]))
    print(json.dumps(asyncio.run(asyncio.wait_for(work, 800))), flush=True)


if __name__ == "__main__":
    main()
