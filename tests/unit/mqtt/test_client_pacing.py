"""Does a client hear its answer, whatever stands before it; and does it stop reading what nobody takes?"""

import asyncio
import socket

from godwit.mqtt import client as client_module
from godwit.mqtt import packets as p
from godwit.mqtt.client import UNREAD_MESSAGES_MAX, MqttClient
from godwit.mqtt.codec import Decoder, encode

WAIT_S = 5


class FloodingServer(asyncio.Protocol):
    """Answers each request only after `flood` messages."""

    def __init__(self, flood: int) -> None:
        self.flood = flood
        self.decoder = Decoder("server")

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        for packet in self.decoder.feed(data):
            if isinstance(packet, p.Connect):
                self.transport.write(encode(p.ConnAck(), 5))
            elif isinstance(packet, p.Subscribe):
                self.send_flood()
                self.transport.write(encode(p.SubAck(packet.packet_id, (1,)), 5))
            elif isinstance(packet, p.Publish):
                self.send_flood()
                self.transport.write(encode(p.PubAck(packet.packet_id), 5))

    def send_flood(self):
        self.transport.write(b"".join(encode(p.Publish("t", b"%d" % n), 5) for n in range(self.flood)))


async def connected(flood):
    ours, theirs = socket.socketpair()
    _, server = await asyncio.get_running_loop().connect_accepted_socket(lambda: FloodingServer(flood), theirs)
    return server, await MqttClient.connect("here", 0, p.Connect("c"), wire=ours)


async def take(client, count):
    messages = client.messages()
    return [(await anext(messages)).payload for _ in range(count)]


def test_a_subscription_is_granted_behind_more_messages_than_may_wait_unread():
    async def main():
        flood = 5 * UNREAD_MESSAGES_MAX
        _, client = await connected(flood)
        async with asyncio.timeout(WAIT_S):
            assert await client.subscribe("t") == (1,)
            assert len(await take(client, flood)) == flood
        client.abort()

    asyncio.run(main())


def test_who_publishes_while_he_handles_messages_is_answered():
    async def main():
        flood = 2 * UNREAD_MESSAGES_MAX
        server, client = await connected(flood)
        async with asyncio.timeout(WAIT_S):
            server.send_flood()
            while not client._is_unread:  # noqa: ASYNC110 - nobody takes them: reading stops within some turns
                await asyncio.sleep(0)
            assert await client.publish("answer", b"", qos=1) == 0
            assert len(await take(client, 2 * flood)) == 2 * flood
        client.abort()

    asyncio.run(main())


def test_what_nobody_takes_is_dropped_at_qos_0_in_the_end(monkeypatch):
    monkeypatch.setattr(client_module, "UNREAD_ONCE_MAX", 1_500)

    async def main():
        _, client = await connected(2_000)
        async with asyncio.timeout(WAIT_S):
            await client.subscribe("t")
        assert client.lost == 500
        client.abort()

    asyncio.run(main())
