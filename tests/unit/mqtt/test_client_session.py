"""The client's session: what it sends, what it answers, what survives a lost connection. Bytes in, bytes out."""

import pytest

from godwit.contract.errors import UnavailableError
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.client_session import ClientSession, Closed, Connected, Delivered, Message, raise_for
from godwit.mqtt.codec import Decoder, encode
from godwit.mqtt.reasons import ReasonError


class Line:
    """A session, and what the server at the other end sees of it."""

    def __init__(self, *, version=5, aliases_max=0, ack=None, **connect):
        self.version = version
        self.session = ClientSession(p.Connect("c", version, **connect), aliases_max=aliases_max)
        self.now = 100.0
        self.open(ack)

    def open(self, ack=None, **said):
        self.decoder = Decoder("server")
        self.session.open(self.now)
        (self.connect,) = self.get()
        self.connected = self.say(ack or p.ConnAck(**said))
        self.first = self.get()

    def say(self, *packets):
        return self.session.receive(b"".join(encode(each, self.version) for each in packets), self.now)

    def get(self):
        return self.decoder.feed(self.session.take_output(self.now))

    def publish(self, payload=b"x", qos=1, topic="t", **options):
        return self.session.publish(p.Publish(topic, payload, qos, **options))


def ids(packets):
    return [each.packet_id for each in packets]


@pytest.mark.parametrize("version", [4, 5])
def test_connect_and_publish_at_each_qos(version):
    line = Line(version=version)
    assert line.connect.client_id == "c"
    assert line.connected == [Connected(p.ConnAck())]
    assert line.publish(qos=0) == 0
    assert [line.publish(), line.publish(qos=2)] == [1, 2]
    assert [(each.qos, each.packet_id, each.dup) for each in line.get()] == [
        (0, 0, False),
        (1, 1, False),
        (2, 2, False),
    ]
    assert line.say(p.PubAck(1)) == [Delivered(1, (0,))]
    assert line.say(p.PubRec(2)) == []
    assert line.get() == [p.PubRel(2)]
    assert line.say(p.PubComp(2)) == [Delivered(2, (0,))]
    assert line.session.inflight == 0


def test_refusals_come_as_their_reason():
    line = Line()
    line.publish()
    line.publish(qos=2)
    assert line.say(p.PubAck(1, 0x97, "full")) == [Delivered(1, (0x97,), "full")]
    assert line.say(p.PubRec(2, 0x99)) == [Delivered(2, (0x99,))]
    assert line.session.inflight == 0
    with pytest.raises(ReasonError, match="quota exceeded: full") as raised:
        raise_for((0, 0x97), "full")
    assert (raised.value.reason_code, raised.value.code) == (0x97, "refused")
    raise_for((0, 1, 0x11))


@pytest.mark.parametrize(("version", "said", "reason"), [(5, 0x86, 0x86), (4, 4, 0x86), (4, 5, 0x87), (4, 9, 0x80)])
def test_a_refused_connection(version, said, reason):
    line = Line(version=version, ack=p.ConnAck(reason_code=said))
    assert line.connected == [Closed(reason)]
    assert not line.session.is_connected


def test_the_receive_maximum_of_the_server_is_kept_and_order_too():
    line = Line(ack=p.ConnAck(receive_maximum=2))
    for number in range(5):
        line.publish(bytes((number,)), qos=1 + number % 2)
    assert ids(line.get()) == [1, 2]
    line.say(p.PubRec(2))
    assert line.get() == [p.PubRel(2)]
    line.say(p.PubAck(1))
    assert ids(line.get()) == [3]
    line.say(p.PubComp(2), p.PubAck(3))
    assert ids(line.get()) == [4, 5]


def test_what_was_not_acknowledged_is_sent_again_in_order_and_marked():
    line = Line(session_expiry_interval=60, ack=p.ConnAck(receive_maximum=3))
    for qos in (1, 2, 2, 1, 1):
        line.publish(qos=qos)
    line.get()
    line.say(p.PubRec(2))
    line.session.lose()
    line.publish(b"later")
    line.open(session_present=True)
    assert not line.connect.clean_start
    assert [(type(each), each.packet_id) for each in line.first] == [
        (p.PubRel, 2), (p.Publish, 1), (p.Publish, 3), (p.Publish, 4), (p.Publish, 5), (p.Publish, 6),
    ]  # fmt: skip
    # DUP only where it may have arrived before (3.3.1-2): 4, 5 and 6 are sent for the first time.
    assert [each.dup for each in line.first[1:]] == [True, True, False, False, False]
    assert line.say(p.PubComp(2), p.PubAck(1)) == [Delivered(2, (0,)), Delivered(1, (0,))]


def test_a_server_that_has_forgotten_the_session_gets_everything_anew():
    line = Line(session_expiry_interval=60)
    line.publish()
    line.publish(qos=2)
    line.publish(qos=2)
    line.get()
    line.say(p.PubRec(2))
    line.session.lose()
    line.open(session_present=False)
    assert line.connected[1:] == [Delivered(2, (0,))]  # PUBREC: it had it
    assert [(each.packet_id, each.dup) for each in line.first] == [(1, False), (3, False)]


def test_a_session_that_is_not_kept_is_not_asked_for():
    line = Line()
    line.open()
    assert line.connect.clean_start
    line = Line(session_expiry_interval=60, ack=p.ConnAck(session_expiry_interval=0, assigned_client_id="auto-7"))
    line.open()
    assert (line.connect.clean_start, line.connect.client_id) == (True, "auto-7")


@pytest.mark.parametrize("qos", [1, 2])
def test_inbound_messages_are_acknowledged_when_the_application_says_so(qos):
    line = Line()
    (message,) = line.say(p.Publish("a", b"x", qos, packet_id=9))
    assert line.get() == []
    line.session.acknowledge(message.publish)
    assert line.get() == [p.PubAck(9) if qos == 1 else p.PubRec(9)]
    line.session.acknowledge(message.publish)
    assert line.get() == []
    if qos == 2:
        assert line.say(p.Publish("a", b"x", 2, dup=True, packet_id=9)) == []
        line.say(p.PubRel(9), p.PubRel(9))
        assert line.get() == [p.PubRec(9), p.PubComp(9), p.PubComp(9, reasons.PACKET_IDENTIFIER_NOT_FOUND)]
        assert len(line.say(p.Publish("a", b"y", 2, packet_id=9))) == 1


@pytest.mark.parametrize("qos", [1, 2])
def test_an_unacknowledged_message_that_comes_again_is_not_handed_out_twice(qos):
    line = Line(session_expiry_interval=60)
    (message,) = line.say(p.Publish("a", b"x", qos, packet_id=9))
    line.open(session_present=True)
    assert line.say(p.Publish("a", b"x", qos, dup=True, packet_id=9)) == []
    line.session.acknowledge(message.publish)
    assert line.get() == [p.PubAck(9) if qos == 1 else p.PubRec(9)]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_late_acknowledgement_does_not_answer_another_sessions_message(qos):
    line = Line(session_expiry_interval=60)
    (old,) = line.say(p.Publish("a", b"old", qos, packet_id=9))
    line.open(session_present=False)
    (new,) = line.say(p.Publish("a", b"new", qos, packet_id=9))
    line.session.acknowledge(old.publish)
    assert line.get() == []
    line.session.acknowledge(new.publish)
    assert len(line.get()) == 1


def test_a_refused_message_may_come_anew():
    line = Line()
    (message,) = line.say(p.Publish("a", b"x", 2, packet_id=9))
    line.session.acknowledge(message.publish, reasons.PAYLOAD_FORMAT_INVALID)
    assert line.get() == [p.PubRec(9, reasons.PAYLOAD_FORMAT_INVALID)]
    assert len(line.say(p.Publish("a", b"x", 2, packet_id=9))) == 1


def test_a_server_that_sends_more_than_we_take_is_told_so():
    line = Line(receive_maximum=2)
    events = line.say(*(p.Publish("a", b"", 1, packet_id=n) for n in (1, 2, 3)))
    assert [type(each) for each in events] == [Message, Message, Closed]
    assert line.get() == [p.Disconnect(reasons.RECEIVE_MAXIMUM_EXCEEDED)]


def test_topics_by_number_both_ways():
    line = Line(aliases_max=5, topic_alias_maximum=1, ack=p.ConnAck(topic_alias_maximum=2))
    for topic in ("a", "a", "b", "c", "b"):
        line.publish(topic=topic)
    assert [(each.topic, each.topic_alias) for each in line.get()] == [
        ("a", 1), ("", 1), ("b", 2), ("c", None), ("", 2),
    ]  # fmt: skip
    heard = line.say(p.Publish("long", topic_alias=1), p.Publish("", topic_alias=1))
    assert [each.publish.topic for each in heard] == ["long", "long"]
    line.open(topic_alias_maximum=2)
    assert [(each.topic, each.topic_alias) for each in line.first][:2] == [("a", 1), ("", 1)]
    assert line.say(p.Publish("", topic_alias=1))[0].reason_code == reasons.PROTOCOL_ERROR


def test_what_the_server_does_not_take_is_not_sent():
    line = Line(ack=p.ConnAck(maximum_qos=1, retain_available=False, maximum_packet_size=50))
    for options, reason in (
        ({"qos": 2}, reasons.QOS_NOT_SUPPORTED),
        ({"retain": True}, reasons.RETAIN_NOT_SUPPORTED),
        ({"payload": b"x" * 50}, reasons.PACKET_TOO_LARGE),
    ):
        with pytest.raises(ReasonError) as raised:
            line.publish(**options)
        assert raised.value.reason_code == reason
    assert line.publish(b"x" * 42)
    assert len(encode(line.get()[0], 5)) == 50


def test_what_was_taken_in_before_the_server_said_its_limits_is_given_back():
    session = ClientSession(p.Connect("c"))
    assert session.publish(p.Publish("t", b"x" * 100, 1)) == 1
    assert session.publish(p.Publish("t", b"x", 1)) == 2
    session.open(0.0)
    session.take_output(0.0)
    events = session.receive(encode(p.ConnAck(maximum_packet_size=50), 5), 0.0)
    assert [(each.packet_id, each.reason_codes) for each in events[1:]] == [(1, (reasons.PACKET_TOO_LARGE,))]
    assert session.inflight == 1


def test_subscriptions_are_answered():
    line = Line()
    assert line.session.subscribe((p.Subscription("a", 1), p.Subscription("b"))) == 1
    assert line.session.unsubscribe(("a",)) == 2
    assert line.get() == [p.Subscribe(1, (p.Subscription("a", 1), p.Subscription("b"))), p.Unsubscribe(2, ("a",))]
    assert line.say(p.SubAck(1, (1, 0x87)), p.UnsubAck(2, (0,))) == [Delivered(1, (1, 0x87)), Delivered(2, (0,))]


def test_keep_alive_pings_in_silence_and_gives_up_without_an_answer():
    line = Line(keep_alive=10)
    assert line.session.next_timer() == 110.0
    assert line.session.handle_timer(109.0) == []
    assert line.get() == []
    line.now = 110.0
    assert line.session.handle_timer(110.0) == []
    assert line.get() == [p.PingReq()]
    assert line.session.next_timer() == 115.0
    line.now = 111.0
    assert line.say(p.PingResp()) == []
    assert line.session.next_timer() == 120.0
    # Sending alone does not prove that anybody hears: a line that is dead in one direction is noticed.
    line.now = 119.0
    line.publish()
    line.get()
    assert line.session.next_timer() == 121.0
    line.session.handle_timer(121.0)
    assert line.session.handle_timer(126.0) == [Closed(reasons.KEEP_ALIVE_TIMEOUT, "the server does not answer")]
    assert line.session.next_timer() is None


def test_the_servers_keep_alive_wins_and_zero_means_none():
    assert Line(keep_alive=10, ack=p.ConnAck(server_keep_alive=4)).session.next_timer() == 104.0
    assert Line(keep_alive=0).session.next_timer() is None


@pytest.mark.parametrize(
    "packet",
    [p.ConnAck(), p.PubAck(2), p.PubRec(1), p.PubComp(2), p.Auth(), p.Publish("", topic_alias=1)],
    ids=lambda packet: type(packet).__name__,
)
def test_a_server_that_breaks_the_protocol_is_left(packet):
    line = Line(topic_alias_maximum=1)
    line.publish(qos=1)
    line.publish(qos=2)
    line.get()
    (closed,) = line.say(packet)
    assert closed.reason_code == reasons.PROTOCOL_ERROR
    assert line.get() == [p.Disconnect(reasons.PROTOCOL_ERROR)]
    assert not line.session.is_connected


def test_a_topic_alias_that_was_not_offered_is_refused():
    line = Line()
    (closed,) = line.say(p.Publish("t", topic_alias=1))
    assert closed.reason_code == reasons.TOPIC_ALIAS_INVALID


def test_the_server_says_goodbye():
    line = Line()
    assert line.say(p.Disconnect(0x8B, None, "later", "other")) == [Closed(0x8B, "later", "other")]
    line = Line()
    line.session.disconnect()
    assert line.get() == [p.Disconnect()]


def test_nothing_but_connack_may_come_first():
    session = ClientSession(p.Connect("c"))
    session.open(0.0)
    session.take_output(0.0)
    (closed,) = session.receive(encode(p.PingResp(), 5), 0.0)
    assert closed.reason_code == reasons.PROTOCOL_ERROR
    assert session.take_output(0.0) == b""


def test_packet_ids_in_use_are_passed_over_and_may_run_out():
    session = ClientSession(p.Connect("c"))
    for _ in range(65_535):
        session.publish(p.Publish("t", b"", 1))
    with pytest.raises(UnavailableError):
        session.publish(p.Publish("t", b"", 1))


def test_exchanges_that_go_on_count_against_the_servers_receive_maximum():
    line = Line(session_expiry_interval=60)
    for _ in range(4):
        line.publish(qos=2)
    line.say(p.PubRec(1), p.PubRec(2))
    line.open(session_present=True, receive_maximum=3)
    assert [(type(each), each.packet_id) for each in line.first] == [(p.PubRel, 1), (p.PubRel, 2), (p.Publish, 3)]
    line.say(p.PubComp(1))
    assert ids(line.get()) == [4]
