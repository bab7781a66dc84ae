"""The server's side of a session: packet ids, redelivery, flow control, aliases. Bytes in, bytes out."""

import pytest

from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder, encode
from godwit.mqtt.server_connection import Limits, ServerConnection
from godwit.mqtt.server_message import Delivery, Message
from godwit.mqtt.server_session import Session

NOW = 1_790_000_000_000_000_000


class Line:
    """A connection, and what the client at its other end sees."""

    def __init__(self, session=None, *, version=5, limits=None, **connect):
        self.wakes = 0
        self.version = version
        self.core = ServerConnection(limits or Limits(), self.wake)
        self.decoder = Decoder("client", version=version)
        self.events = []
        self.session = session or Session("c", connect.get("session_expiry_interval", 0))
        self.send(p.Connect("c", version=version, **connect))
        self.core.accept(self.session, NOW, session_present=session is not None)
        self.connack, *self.first = self.get()
        self.events.clear()

    def wake(self):
        self.wakes += 1

    def send(self, *packets):
        self.send_bytes(b"".join(encode(each, self.version) for each in packets))

    def send_bytes(self, data):
        self.events += list(self.core.receive(data, NOW))

    def get(self):
        data = b"".join(self.core.outgoing)
        self.core.outgoing.clear()
        return self.decoder.feed(data)

    def deliver(self, payload="x", qos=1, topic="t", **properties):
        publish = p.Publish(topic, payload.encode(), qos, properties=p.PublishProperties(**properties))
        delivery = Delivery(Message(publish, NOW), qos)
        self.core.deliver(delivery, NOW)
        return delivery


def publish(packet_id, payload=b"x", qos=1, **options):
    return p.Publish("t", payload, qos, packet_id=packet_id, **options)


@pytest.mark.parametrize("version", [4, 5])
def test_bytes_may_come_one_by_one(version):
    line = Line(version=version)
    data = b"".join(encode(each, version) for each in (publish(1), publish(2, qos=2), p.PingReq()))
    for at in range(len(data)):
        line.send_bytes(data[at : at + 1])
    assert [each.packet_id for each in line.events] == [1, 2]
    assert line.get() == [p.PingResp()]


def test_shell_is_woken_once_until_it_has_fetched():
    line = Line()
    before = line.wakes
    line.send(p.PingReq(), p.PingReq())
    assert line.wakes == before + 1
    line.get()
    line.send(p.PingReq())
    assert line.wakes == before + 2


def test_repeated_packet_is_not_handed_on_while_the_first_is_pending():
    line = Line()
    line.send(publish(7), publish(7, dup=True))
    assert len(line.events) == 1
    line.core.settle(line.events[0])
    assert line.get() == [p.PubAck(7)]
    line.send(publish(7, b"new"))
    assert len(line.events) == 2


def test_what_comes_again_on_a_new_connection_is_recognised():
    first = Line(session_expiry_interval=60)
    first.send(publish(1, b"pending"), publish(2, b"durable"), publish(3, b"reused"))
    pending, durable, _ = first.events
    session = first.session
    session.detach()
    second = Line(session, session_expiry_interval=60)
    first.core.settle(durable)
    assert second.get() == []
    second.send(publish(1, b"pending", dup=True), publish(2, b"durable", dup=True), publish(3, b"another"))
    assert [each.payload for each in second.events] == [b"another"]
    assert second.get() == [p.PubAck(2)]
    first.core.settle(pending)
    assert second.get() == [p.PubAck(1)]


def test_qos_2_is_handed_on_once():
    line = Line()
    line.send(publish(4, qos=2), publish(4, qos=2, dup=True))
    assert len(line.events) == 1
    line.core.settle(line.events[0])
    line.send(publish(4, qos=2, dup=True), p.PubRel(4), p.PubRel(4))
    assert line.get() == [p.PubRec(4), p.PubRec(4), p.PubComp(4), p.PubComp(4)]
    line.send(publish(4, qos=2))
    assert len(line.events) == 2


def test_refused_qos_2_frees_its_packet_id():
    line = Line()
    line.send(publish(4, qos=2))
    line.core.settle(line.events[0], 0x99, "malformed-json")
    assert line.get() == [p.PubRec(4, 0x99, "malformed-json")]
    line.send(publish(4, qos=2))
    assert len(line.events) == 2


def test_more_than_the_receive_maximum_ends_the_connection():
    line = Line(limits=Limits(receive_maximum=2))
    line.send(publish(1), publish(2, qos=2), publish(3))
    assert len(line.events) == 2
    assert line.get()[-1].reason_code == 0x93
    assert line.core.closed is not None


def test_ids_of_an_earlier_connection_do_not_count_against_the_receive_maximum():
    first = Line(limits=Limits(receive_maximum=2))
    first.send(publish(1, qos=2), publish(2, qos=2))
    session = first.core.session
    session.detach()
    second = Line(limits=Limits(receive_maximum=2), session=session)
    second.send(publish(3, qos=2), publish(4, qos=2))
    assert len(second.events) == 2
    second.send(publish(5, qos=2))
    assert second.core.closed is not None


def test_the_clients_receive_maximum_is_kept_and_order_too():
    line = Line(receive_maximum=2)
    for number in range(4):
        line.deliver(str(number))
    sent = line.get()
    assert [each.payload for each in sent] == [b"0", b"1"]
    line.send(p.PubAck(sent[0].packet_id))
    assert [each.payload for each in line.get()] == [b"2"]


def test_unacknowledged_is_sent_again_in_order_with_dup():
    first = Line(session_expiry_interval=60)
    first.deliver("1"), first.deliver("2", 2), first.deliver("3", 2)
    ids = [each.packet_id for each in first.get()]
    first.send(p.PubRec(ids[2]))
    first.session.detach()
    again = Line(first.session, session_expiry_interval=60).first
    assert [(type(each), each.packet_id) for each in again] == list(
        zip([p.Publish, p.Publish, p.PubRel], ids, strict=True)
    )
    assert all(each.dup for each in again[:2])


def test_resumed_with_a_smaller_receive_maximum():
    first = Line(session_expiry_interval=60)
    for number in range(5):
        first.deliver(str(number))
    first.session.detach()
    second = Line(first.session, session_expiry_interval=60, receive_maximum=2)
    assert [each.payload for each in second.first] == [b"0", b"1"]
    second.send(p.PubAck(second.first[0].packet_id), p.PubAck(second.first[1].packet_id))
    assert [each.payload for each in second.get()] == [b"2", b"3"]


def test_slow_reader_gets_answers_only():
    line = Line()
    line.core.is_blocked = True
    line.deliver("1")
    line.core.deliver_once(Message(publish(0, qos=0), NOW), retain=False, subscription_ids=(), now=NOW)
    line.send(p.PingReq())
    assert line.get() == [p.PingResp()]
    line.core.is_blocked = False
    line.core.pump(NOW)
    assert [each.payload for each in line.get()] == [b"1"]
    assert line.core.session.dropped == 1


def test_topic_aliases_both_ways():
    line = Line(topic_alias_maximum=1)
    line.send(publish(1, topic_alias=3))
    line.send(p.Publish("", b"y", 1, packet_id=2, topic_alias=3))
    assert [each.topic for each in line.events] == ["t", "t"]
    line.deliver("1"), line.deliver("2"), line.deliver("3", topic="other")
    assert [(each.topic, each.topic_alias) for each in line.get()] == [("t", 1), ("", 1), ("other", None)]


@pytest.mark.parametrize(("alias", "topic", "reason"), [(33, "t", 0x94), (5, "", 0x82)])
def test_bad_topic_alias(alias, topic, reason):
    line = Line()
    line.send(p.Publish(topic, b"", topic_alias=alias))
    assert line.get()[-1].reason_code == reason


def test_too_large_for_the_client_counts_as_sent():
    line = Line(maximum_packet_size=40)
    line.deliver("x" * 100), line.deliver("small")
    assert [each.payload for each in line.get()] == [b"small"]
    assert len(line.session.inflight) == 1


def test_expired_while_waiting_is_not_sent():
    line = Line(receive_maximum=1)
    line.deliver("1"), line.deliver("2", message_expiry_interval=5), line.deliver("3", message_expiry_interval=50)
    (sent,) = line.get()
    data = encode(p.PubAck(sent.packet_id), 5)
    list(line.core.receive(data, NOW + 20_000_000_000))
    (late,) = line.get()
    assert late.payload == b"3"
    assert late.properties.message_expiry_interval == 30


@pytest.mark.parametrize("answer", [p.PubRec, p.PubComp])
def test_wrong_answer_to_qos_1(answer):
    line = Line()
    line.deliver()
    line.send(answer(line.get()[0].packet_id))
    assert line.get() == [p.Disconnect(0x82)]


@pytest.mark.parametrize(("reason", "keeps_will"), [(0, False), (4, True)])
def test_disconnect_discards_the_will_unless_asked(reason, keeps_will):
    line = Line(will=p.Will("w"))
    line.send(p.Disconnect(reason))
    assert line.core.closed.keeps_will is keeps_will
    assert line.core.closed.is_by_client


def test_session_expiry_may_not_appear_at_the_end():
    line = Line()
    line.send(p.Disconnect(session_expiry_interval=10))
    assert line.get() == [p.Disconnect(0x82)]


def test_packet_ids_under_way_are_not_given_twice():
    session = Session("c", 60)
    line = Line(session, limits=Limits(inflight_max=70_000, queued_messages_max=0), session_expiry_interval=60)
    stuck = line.deliver()
    line.get()
    for _ in range(65_600):
        delivery = line.deliver()
        line.core.outgoing.clear()
        assert delivery.packet_id != stuck.packet_id
        del session.inflight[delivery.packet_id]


@pytest.mark.parametrize(("data", "answer"), [
    (b"\xc0\x00", b""),
    (b"GET / HTTP/1.1\r\n\r\n", b""),
    (b"\x10\x0d\x00\x04MQTT\x03\x02\x00\x0a\x00\x01p", b"\x20\x02\x00\x01"),
    (b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x0a\x00\x01p", b"\x20\x03\x00\x84\x00"),
    (b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x01p", b"\x20\x02\x00\x01"),
])  # fmt: skip
def test_what_is_no_connect_of_ours(data, answer):
    core = ServerConnection(Limits(), lambda: None)
    assert list(core.receive(data, NOW)) == []
    assert core.closed is not None
    assert b"".join(core.outgoing) == answer
