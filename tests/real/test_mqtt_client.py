"""Does our own client do its job over real sockets: plain, TLS, against our broker and somebody else's?"""

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port

from godwit.contract.errors import UnavailableError
from godwit.mqtt import packets as p
from godwit.mqtt import tls
from godwit.mqtt.client import MqttClient
from godwit.mqtt.client_session import ClientSession
from godwit.mqtt.reasons import ReasonError
from godwit.server.identity.room import open_identity
from godwit.server.registry.service import Registry
from godwit.server.storage.database import Database
from godwit.server.storage.engine import open_engine

pytestmark = pytest.mark.real

HOST = "127.0.0.1"


class BrokerProcess:
    """Our broker in a process of its own; it may be killed and started again at the same place."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()
        self.start()

    def start(self) -> None:
        script = Path(__file__).with_name("broker_process.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(self.directory), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def broker(tmp_path):
    process = BrokerProcess(tmp_path)
    yield process
    process.kill()


async def collect(client, count):
    found = []
    async with asyncio.timeout(10):
        async for publish in client.messages():
            found.append(publish)
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("version", [4, 5])
def test_publish_and_subscribe_at_each_qos(broker, version):
    async def story():
        listener = await MqttClient.connect(HOST, broker.port, p.Connect("listener", version))
        assert await listener.subscribe("a/+", p.Subscription("b", 2)) == (1, 2)
        speaker = await MqttClient.connect(
            HOST,
            broker.port,
            p.Connect("speaker", version),
            session=ClientSession(p.Connect("speaker", version), aliases_max=3),
        )
        for qos in (0, 1, 2):
            assert await speaker.publish("b", bytes((qos,)), qos=qos) == 0
        await asyncio.gather(*(speaker.publish(f"a/{n % 9}", b"%d" % n, qos=1) for n in range(2_000)))
        found = await collect(listener, 2_003)
        assert [(each.topic, each.qos) for each in found[:3]] == [("b", 0), ("b", 1), ("b", 2)]
        assert [int(each.payload) for each in found[3:]] == list(range(2_000))
        await listener.unsubscribe("a/+")
        await speaker.disconnect()
        await listener.disconnect()
        assert not listener.is_open
        with pytest.raises(UnavailableError):
            await listener.publish("a", b"")

    asyncio.run(story())


def test_a_session_goes_on_after_the_broker_was_killed(broker):
    async def story():
        session = ClientSession(p.Connect("device", session_expiry_interval=600))
        client = await MqttClient.connect(HOST, broker.port, session.connect, session=session)
        await client.subscribe("t")
        under_way = [asyncio.create_task(client.publish("t", b"%d" % n, qos=2)) for n in range(200)]
        await asyncio.sleep(0)
        broker.kill()
        await client.wait_closed()
        # what had come before the kill is in the application's hands, and not handed out again by this session
        early = {int(each.payload) async for each in client.messages(acknowledge=False)}
        done = await asyncio.gather(*under_way, return_exceptions=True)
        assert all(each == 0 or isinstance(each, UnavailableError) for each in done)
        with pytest.raises(ConnectionRefusedError):
            await MqttClient.connect(HOST, broker.port, session.connect, session=session)
        broker.start()
        client = await MqttClient.connect(HOST, broker.port, session.connect, session=session)
        await client.publish("t", b"200", qos=1)
        found = {int(each.payload) for each in await collect(client, 201 - len(early))}
        assert found | early == set(range(201))
        async with asyncio.timeout(10):
            while session.inflight:  # noqa: ASYNC110 - the session tells nobody when it is idle
                await asyncio.sleep(0.01)
        await client.disconnect()

    asyncio.run(story())


def test_refusals_and_silence(broker):
    async def story():
        with pytest.raises(ReasonError, match="client identifier not valid"):
            await MqttClient.connect(HOST, broker.port, p.Connect("$mine"))
        with pytest.raises(ReasonError):
            await MqttClient.connect(HOST, broker.port, p.Connect("", 4, clean_start=False))

        async def hear(reader, writer):
            await reader.read()
            writer.close()

        mute = await asyncio.start_server(hear, HOST, 0)
        with pytest.raises(UnavailableError, match="does not answer"):
            await MqttClient.connect(HOST, mute.sockets[0].getsockname()[1], p.Connect("c"), timeout_s=0.1)
        mute.close()
        first = await MqttClient.connect(HOST, broker.port, p.Connect("same"))
        second = await MqttClient.connect(HOST, broker.port, p.Connect("same"))
        await asyncio.wait_for(first.wait_closed(), 5)
        assert "session taken over" in first.why_closed
        await second.disconnect()

    asyncio.run(story())


def test_tls_checks_the_name_and_the_authority(tmp_path):
    database = Database(open_engine("", tmp_path))
    own = open_identity(database, Registry(database), tmp_path).server
    files = own.ensure()

    async def serve(reader, writer):
        await reader.read(100)
        writer.write(b"\x20\x03\x00\x00\x00")
        await reader.read(100)
        writer.close()

    async def story():
        context = tls.server_context(files.certificate, files.key)
        server = await asyncio.start_server(serve, HOST, 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        trusting = tls.client_context(authority=own.ca)
        client = await MqttClient.connect("localhost", port, p.Connect("c"), tls=trusting)
        await client.disconnect()
        with pytest.raises(ssl.SSLCertVerificationError):
            await MqttClient.connect("localhost", port, p.Connect("c"), tls=tls.client_context())
        old = tls.client_context(authority=own.ca)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers("AES128-GCM-SHA256")  # no forward secrecy
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await MqttClient.connect("localhost", port, p.Connect("c"), tls=old)
        server.close()

    asyncio.run(story())
