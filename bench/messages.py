"""What it costs to sign and to encrypt messages end to end, on the device and on the server, in one run.

Small messages (one sample, JSON) and large ones (500 samples, CBOR, compressed), plain, signed, encrypted, and both.
On the device: the CPU to seal. On the server: the CPU of ingest from the payload to the commit, in memory; and of the
whole platform, from the socket to the disk. Rates are of one core.
"""

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.device import sample
from bench.process import Target, godwit
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from godwit.contract.compression import Compression, compress
from godwit.contract.cose_keys import AgreeKey, SigningKey, key_id, pem_of
from godwit.contract.ids import DEFAULT_TENANT, DeviceId
from godwit.contract.topics import Channel, topics_for
from godwit.device.sealing import Sealing
from godwit.device.telemetry import encode_message, encode_readings
from godwit.mqtt import packets as p
from godwit.mqtt.client import MqttClient
from godwit.mqtt.client_session import ClientSession, Delivered
from godwit.server.identity.model import DeviceKey, KeyPurpose, PlatformKey
from godwit.server.ingest.arrival import Arrival, Peer
from godwit.server.ingest.directory import Directory
from godwit.server.ingest.service import Ingest
from godwit.server.registry.model import Device
from godwit.server.registry.presence import PresenceBoard
from godwit.server.telemetry.live import LiveFeed
from godwit.server.telemetry.memory import MemoryStore

NS: Final = 1_000_000_000
GROUP: Final = 100
"""Messages in a commit."""
SAMPLES: Final = 500
IN_FLIGHT: Final = 500


class Way(NamedTuple):
    """How messages are sealed."""

    name: str
    signing: Callable[[], SigningKey] | None
    is_encrypted: bool


def _p256() -> AgreeKey:
    return ec.generate_private_key(ec.SECP256R1())


WAYS: Final = (
    Way("plain", None, is_encrypted=False),
    Way("signed, ES256", _p256, is_encrypted=False),
    Way("signed, EdDSA", ed25519.Ed25519PrivateKey.generate, is_encrypted=False),
    Way("encrypted", None, is_encrypted=True),
    Way("signed, ES256, and encrypted", _p256, is_encrypted=True),
)  # fmt: skip


WARM: Final = Way("warm", _p256, is_encrypted=True)
"""Its figures are thrown away."""


def small(number: int, epoch: str) -> bytes:
    """Return a message of one sample."""
    said = {
        "stream": "main",
        "epoch": epoch,
        "seq": number,
        "timestamp": _time(number) / NS,
        "readings": sample(number),
    }
    return json.dumps(said).encode()


def large(number: int, epoch: str) -> bytes:
    """Return a message of many samples, as the SDK makes it."""
    numbers = range(number * SAMPLES, (number + 1) * SAMPLES)
    items = [(_time(each), encode_readings(sample(each))) for each in numbers]
    return compress(encode_message("main", epoch, numbers[0], items, {}), Compression.DEFLATE)


def _time(number: int) -> int:
    return START + number * NS // 100


START: Final = time.time_ns() - 86_400 * NS
SIZES: Final = (("1 sample", small, 4_000), (f"{SAMPLES} samples", large, 200))


class Parties(NamedTuple):
    """One device and the platform, with their keys."""

    sealing: Sealing
    sign: SigningKey | None
    ours: AgreeKey


def parties(way: Way, ours: AgreeKey) -> Parties:
    """Make the keys of a way."""
    sign = way.signing() if way.signing is not None else None
    public = pem_of(ours.public_key()) if way.is_encrypted else None
    return Parties(Sealing(sign_key=sign, platform_agree_key=public), sign, ours)


def on_device(messages: Sequence[bytes], sealing: Sealing, device: str) -> tuple[list[bytes], float]:
    """Seal messages; returns them, and the CPU seconds."""
    began = time.process_time()
    sealed = [sealing.seal(device, Channel.TELEMETRY, each) for each in messages]
    return sealed, time.process_time() - began


class _Settled:
    def settle(self, arrival: Arrival) -> None:
        """Nobody waits."""


def in_ingest(messages: Sequence[bytes], made: Parties, device: str) -> float:
    """Take messages down the road into a store in memory; returns the CPU seconds."""
    directory, topics = Directory(), topics_for("native")
    directory.learn(Device(DeviceId(device)))
    ingest = Ingest(MemoryStore(), directory, topics, PresenceBoard([], START), LiveFeed())
    ingest.recover()
    learn = ingest.pipeline.seals.learn
    if made.sign is not None:
        public = made.sign.public_key()
        learn(DeviceKey(key_id(public), DeviceId(device), DEFAULT_TENANT, KeyPurpose.SIGN, pem_of(public), 1))
    ours = made.ours.public_key()
    learn(PlatformKey(key_id(ours), DEFAULT_TENANT, KeyPurpose.AGREE, pem_of(ours), 1), made.ours)
    name, peer, settled = f"devices/{device}/telemetry", Peer("bench", "tls"), _Settled()
    topic = topics.parse(name)
    began = time.process_time()
    for number, payload in enumerate(messages):
        arrival = Arrival(settled, p.Publish(name, payload, 1), peer, time.time_ns(), topic)
        ingest.receive(arrival)
        assert not arrival.code, arrival.detail
        if number % GROUP == GROUP - 1:
            ingest.write(ingest.seal())
            ingest._after_commit()  # noqa: SLF001 - as the group commit does
    return time.process_time() - began


def _ask(target: Target, method: str, path: str, document: object) -> Any:
    headers = {"Authorization": f"Bearer {target.token()}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{target.http_port}/api/v1{path}"
    request = urllib.request.Request(url, json.dumps(document).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


async def _publish(port: int, client_id: str, device: str, messages: Sequence[bytes]) -> None:
    """Send messages at QoS 1, so many under way, and wait until all are stored."""
    left, done = len(messages), asyncio.Event()

    def delivered(_: Delivered) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    session = ClientSession(p.Connect(client_id))
    client = await MqttClient.connect("127.0.0.1", port, session.connect, session=session, on_delivered=delivered)
    for number, payload in enumerate(messages):
        session.publish(p.Publish(f"devices/{device}/telemetry", payload, 1))
        if number % 50 == 0:
            client.flush_soon()
            while session.inflight > IN_FLIGHT:  # noqa: ASYNC110 - paces itself
                await asyncio.sleep(0.001)
    client.flush_soon()
    await asyncio.wait_for(done.wait(), 120)
    await client.disconnect()


def in_platform(target: Target, way: Way, label: str, make: Callable[[int, str], bytes], count: int) -> float:
    """Send messages to a running platform; returns the CPU seconds of all its processes."""
    device = f"{way.name}-{label}".replace(",", "").replace(" ", "-")
    first = json.dumps({"readings": {"first": 1.0}}).encode()
    asyncio.run(_publish(target.port, device, device, [first]))  # it registers itself
    sign = way.signing() if way.signing is not None else None
    if sign is not None:
        document = {"purpose": "sign", "public": pem_of(sign.public_key())}
        _ask(target, "POST", f"/devices/{device}/message-keys", document)
    public = _agree_key(target) if way.is_encrypted else None
    sealing = Sealing(sign_key=sign, platform_agree_key=public)
    messages, _ = on_device([make(each, "e") for each in range(count)], sealing, device)
    began = target.cpu_s()
    asyncio.run(_publish(target.port, device, device, messages))
    time.sleep(0.3)
    used = target.cpu_s() - began
    ledger = json.loads(target.get(f"/api/v1/devices/{device}/ledger"))
    assert ledger["gaps"] == 0, ledger
    assert not ledger["quarantined"], ledger
    return used


def _agree_key(target: Target) -> str:
    path = f"/api/v1/tenants/{DEFAULT_TENANT}/message-keys"
    items = json.loads(target.get(path))["items"] or [
        _ask(target, "POST", path.removeprefix("/api/v1"), {"purpose": "agree"})
    ]
    return next(str(each["public"]) for each in items if each["purpose"] == "agree" and not each["retired"])


def run(directory: Path, *, quick: bool) -> list[dict[str, object]]:
    """Run all ways, small and large, on device, in ingest and in a platform."""
    rows: list[dict[str, object]] = []
    ours = _p256()
    with godwit(directory / "messages") as target:
        for label, make, full in SIZES:
            count = full // 4 if quick else full
            plain = [make(number, "e") for number in range(count)]
            for way in (WARM, *WAYS):
                made = parties(way, ours)
                device = "bench-messages"
                sealed, sealing_s = on_device(plain, made.sealing, device)
                ingest_s = in_ingest(sealed, made, device)
                platform_s = in_platform(target, way, label, make, count)
                if way is WARM:
                    continue
                rows.append({
                    "case": f"{label}, {way.name}", "bytes": sum(map(len, sealed)) // count,
                    "device_us": sealing_s / count * 1e6, "ingest_us": ingest_s / count * 1e6,
                    "platform_us": platform_s / count * 1e6,
                    "device_per_s": count / sealing_s if way.name != "plain" else None,
                    "platform_per_s": count / platform_s,
                })  # fmt: skip
    return rows
