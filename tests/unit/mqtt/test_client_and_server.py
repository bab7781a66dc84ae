"""The client's and the server's session against each other, over a line that is cut anywhere, any number of times.

Whatever is lost: QoS 1 arrives at least once, QoS 2 exactly once, both in their order.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from godwit.mqtt import packets as p
from godwit.mqtt.client_session import ClientSession, Closed, Delivered, Message
from godwit.mqtt.server_connection import Limits, ServerConnection
from godwit.mqtt.server_message import Delivery
from godwit.mqtt.server_message import Message as ServerMessage
from godwit.mqtt.server_session import Session

NOW = 1_790_000_000_000_000_000


class World:
    """Both ends. The server makes durable when told to, and so does the application acknowledge."""

    def __init__(self, version):
        self.client = ClientSession(
            p.Connect("c", version, clean_start=version == 5, session_expiry_interval=60 * (version == 5)),
            aliases_max=2,
        )
        self.limits = Limits(receive_maximum=3, topic_alias_maximum=2)
        self.session = Session("c", 60)
        self.server = None
        self.at_server, self.at_client, self.delivered = [], [], []
        self.to_settle, self.to_acknowledge = [], []
        self.is_known = False
        self.connect()

    def connect(self):
        if self.server is not None:
            self.session.detach()
            self.client.lose()
        self.server = ServerConnection(self.limits, lambda: None)
        self.client.open(0.0)

    def exchange(self, up=10**9, down=10**9):
        """Carry at most so many bytes each way."""
        data = self.client.take_output(0.0)[:up]
        for packet in self.server.receive(data, NOW):
            if isinstance(packet, p.Connect):
                self.server.accept(self.session, NOW, session_present=self.is_known)
                self.is_known = True
            elif isinstance(packet, p.Publish):
                self.at_server.append(packet.payload)
                self.to_settle.append((self.server, packet))
        assert self.server.closed is None, self.server.closed
        data = b"".join(self.server.outgoing)[:down]
        self.server.outgoing.clear()
        for event in self.client.receive(data, 0.0):
            assert not isinstance(event, Closed), event
            if isinstance(event, Message):
                self.at_client.append(event.publish.payload)
                self.to_acknowledge.append(event.publish)
            elif isinstance(event, Delivered):
                self.delivered.append(event.packet_id)

    def settle(self):
        for server, packet in self.to_settle:
            server.settle(packet)
        self.to_settle.clear()

    def acknowledge(self):
        for publish in self.to_acknowledge:
            self.client.acknowledge(publish)
        self.to_acknowledge.clear()

    def send_down(self, payload, qos):
        delivery = Delivery(ServerMessage(p.Publish("down", payload, qos), NOW), qos)
        if self.session.connection is not None:
            self.session.connection.deliver(delivery, NOW)
        else:
            self.session.enqueue(delivery, 1000, 10**9)

    def finish(self):
        self.connect()
        for _ in range(200):
            self.exchange()
            self.settle()
            self.acknowledge()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("up"), st.integers(1, 2)),
        st.tuples(st.just("down"), st.integers(1, 2)),
        st.tuples(st.just("exchange"), st.just(0)),
        st.tuples(st.just("settle"), st.just(0)),
        st.tuples(st.just("acknowledge"), st.just(0)),
        st.tuples(st.just("cut"), st.tuples(st.integers(0, 120), st.integers(0, 120))),
    ),
    max_size=40,
)


def firsts(payloads):
    return list(dict.fromkeys(payloads))


@pytest.mark.parametrize("version", [4, 5])
@given(steps=STEPS)
@settings(deadline=None, max_examples=150)
def test_nothing_is_lost_or_doubled_however_the_line_is_cut(version, steps):
    world = World(version)
    world.exchange()
    up, down = {1: [], 2: []}, {1: [], 2: []}
    for number, (step, value) in enumerate(steps):
        payload = f"{number}".encode()
        if step == "up":
            world.client.publish(p.Publish(f"up/{number % 3}", payload, value))
            up[value].append(payload)
        elif step == "down":
            world.send_down(payload, value)
            down[value].append(payload)
        elif step == "cut":
            world.exchange(*value)
            world.connect()
        else:
            getattr(world, step)()
    world.finish()
    for sent, got in ((up, world.at_server), (down, world.at_client)):
        assert [each for each in got if each in sent[2]] == sent[2]  # exactly once, in order
        assert firsts(each for each in got if each in sent[1]) == sent[1]  # at least once, in order
    assert len(world.delivered) == len(up[1]) + len(up[2])
    assert world.client.inflight == 0
    assert not world.session.deliveries()
