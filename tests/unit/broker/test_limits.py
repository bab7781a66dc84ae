"""Do limits let through what they promise and no more, and does everybody who is refused hear which it was?"""

from hypothesis import given
from hypothesis import strategies as st

from godwit.mqtt import packets as p
from godwit.server.broker import reception
from godwit.server.broker.limits import BURST_S, NS, Bucket, Meters, Quotas, Turns
from godwit.server.registry.model import TenantQuota


@given(
    st.integers(1, 1_000),
    st.lists(st.tuples(st.integers(0, 2 * NS), st.integers(1, 20)), min_size=1, max_size=60),
)
def test_a_bucket_gives_no_more_than_its_rate_and_one_burst(per_s, steps):
    now, taken = 0, 0
    bucket = Bucket(per_s, now)
    for pause, amount in steps:
        now += pause
        bucket.fill(now)
        if amount <= per_s * BURST_S and bucket.has(amount):
            bucket.take(amount)
            taken += amount
    assert taken <= per_s * BURST_S + per_s * now / NS + 1e-6


def test_after_an_overdraft_the_wait_is_what_the_rate_needs():
    bucket = Bucket(10, 0)
    bucket.take(10 * BURST_S + 5)
    assert bucket.wait_ns() == NS // 2
    bucket.fill(NS)
    assert bucket.wait_ns() == 0


def test_tenants_share_their_bucket_and_others_have_their_own():
    meters = Meters(Quotas(tenant_messages_per_s=1), 0)
    one, two, other = meters.meter("a", 0), meters.meter("a", 0), meters.meter("b", 0)
    assert all(not one.exceeded(9, 0) for _ in range(BURST_S))
    assert two.exceeded(9, 0) == "at most 1 messages/s for tenant a"
    assert not other.exceeded(9, 0)
    assert Meters(Quotas(), 0).meter("a", 0) is None


def test_mqtt_5_is_told_the_limit_and_the_ledger_counts(make_world):
    world = make_world(quotas=Quotas(messages_per_s=1))
    peer = world.connect("d-1")
    for number in range(1, BURST_S + 2):
        peer.publish("devices/d-1/telemetry", "{}", 1, packet_id=number)
    *good, last = peer.get()
    assert {each.reason_code for each in good} == {0}
    assert (last.reason_code, last.reason_string) == (0x97, "at most 1 messages/s for this client")
    assert [each.code for each in world.ingest.turned_away] == ["rate-limited"]
    world.now += NS
    peer.publish("devices/d-1/telemetry", "{}", 1, packet_id=99)
    assert peer.get()[0].reason_code == 0


def test_mqtt_3_1_1_is_read_later_and_loses_nothing(make_world):
    world = make_world(quotas=Quotas(messages_per_s=1))
    peer = world.connect("d-1", version=4)
    for number in range(1, BURST_S + 3):
        peer.publish("devices/d-1/telemetry", "{}", 1, packet_id=number)
    assert [type(each) for each in peer.get()] == [p.PubAck] * (BURST_S + 2)
    assert peer.holds == [1.0, 2.0]
    assert not world.ingest.turned_away


def test_who_has_more_than_its_share_under_way_is_left_unread(make_world):
    world = make_world(quotas=Quotas(lane_bytes=10_000, share_bytes=5_000))
    flusher, other = world.connect("d-1"), world.connect("d-2")
    for number in range(1, 30):
        flusher.publish("t", "x" * 500, 1, packet_id=number)
    other.publish("t", "x", 1, packet_id=1)
    assert flusher.is_choked
    assert not other.is_choked
    world.group.commit()
    assert flusher.client.pending_bytes == 0
    world.broker.relieve()
    assert not flusher.is_choked


def test_connections_beyond_the_limit_hear_when_to_come_back_and_known_ones_return(make_world):
    world = make_world(quotas=Quotas(connections=1))
    world.connect("first")
    second = world.connect("second")
    assert second.connack.reason_code == 0x97
    assert second.connack.reason_string == "at most 1 connections; try again in 30 s or more"
    assert world.connect("first").connack.reason_code == 0
    assert world.connect("third", version=4).connack.reason_code == 3
    assert world.broker.gate.limited.connections == 2


def test_who_connects_in_a_storm_is_told_to_come_back_each_in_turn(make_world):
    world = make_world(quotas=Quotas(connects_per_s=2))
    told = [world.connect(f"c-{number}").connack for number in range(2 * BURST_S + 4)]
    assert [each.reason_code for each in told] == [0] * 2 * BURST_S + [0x9F] * 4
    assert told[-1].reason_string == "at most 2 connects/s of all clients together; try again in 2 s or more"
    assert [each.reason_string.split()[-4] for each in told[-4:]] == ["1", "1", "2", "2"]
    assert world.connect("old", version=4).connack.reason_code == 3
    assert world.connect("c-0").connack.reason_code == 0x9F  # a client that takes its session over in a loop, too
    world.pass_s(1)
    assert [world.connect(f"late-{number}").connack.reason_code for number in range(3)] == [0, 0, 0x9F]
    assert world.broker.gate.limited.connects == 7


def test_nobody_is_told_to_stay_away_for_longer_than_five_minutes():
    turns = Turns(1)
    assert [turns.wait_s(0) for _ in range(1_000)][-1] == 300
    assert turns.wait_s(100 * NS) == 201


def test_nobody_new_comes_in_while_too_much_waits_to_be_stored(make_world, monkeypatch):
    monkeypatch.setattr(reception, "PENDING_BYTES_MAX", 5_000)
    world = make_world()
    flusher = world.connect("d-1")
    for number in range(1, 10):
        flusher.publish("t", "x", 1, packet_id=number)
    refused = world.connect("d-2").connack
    assert refused.reason_code == 0x89
    assert refused.reason_string == "at most 5000 bytes may wait to be stored; try again in 5 s or more"
    world.group.commit()
    assert world.connect("d-2").connack.reason_code == 0


def test_a_tenant_has_its_own_number_of_connections(make_world):
    world = make_world(quotas=Quotas(connections_per_tenant=1), tenant_of=lambda client_id: client_id[0])
    assert world.connect("a1").connack.reason_code == 0
    assert world.connect("b1").connack.reason_code == 0
    refused = world.connect("a2")
    assert refused.connack.reason_string == "at most 1 connections of a tenant; try again in 30 s or more"
    world.broker.clients["a1"].core.close(0x98, "kicked")
    world.broker.disconnect(world.broker.clients["a1"], world.now)
    assert world.connect("a2").connack.reason_code == 0


def test_subscriptions_and_retained_bytes_are_bounded(make_world):
    world = make_world(quotas=Quotas(subscriptions=2, retained_bytes=10))
    peer = world.connect("c")
    assert [peer.subscribe(name)[0].reason_codes for name in ("a", "b", "c", "a")] == [(0,), (0,), (0x97,), (0,)]
    peer.publish("x", "123456", 1, retain=True)
    assert peer.get()[0].reason_code in (0, 0x10)
    peer.publish("y", "123456", 1, retain=True)
    answer = peer.get()[0]
    assert (answer.reason_code, answer.reason_string) == (0x97, "at most 10 bytes are retained")
    peer.publish("x", "", 1, retain=True)
    peer.get()
    peer.publish("y", "123456", 1, retain=True, packet_id=2)
    assert peer.get()[0].reason_code in (0, 0x10)


def test_what_waits_for_all_together_is_bounded_and_nobody_is_starved_by_another(make_world):
    world = make_world(quotas=Quotas(queued_bytes=500_000))
    lasting = {"clean_start": False, "session_expiry_interval": 3600}
    for name in ("greedy", "modest"):
        peer = world.connect(name, **lasting)
        peer.subscribe(name, 1)
        peer.vanish()
    writer = world.connect("w")

    def send(topic, times):
        for _ in range(times):
            writer.publish(topic, "x" * 100_000, 1)
            writer.get()
        return world.broker.sessions[topic]

    greedy = send("greedy", 10)
    assert (greedy.queued_bytes, greedy.dropped) == (500_000, 5)
    modest = send("modest", 10)
    assert (modest.queued_bytes, modest.dropped) == (300_000, 7)
    world.boot()
    assert world.broker.kept.room.bytes == 800_000
    back = world.connect("greedy", **lasting)
    assert len(back.payloads()) == 5
    assert world.broker.kept.room.bytes == 300_000
    world.connect("modest")  # a clean start ends what was
    assert world.broker.kept.room.bytes == 0


def quotas_by_name(**quotas):
    return lambda tenant: quotas.get(tenant, TenantQuota())


def test_a_tenants_own_quota_goes_before_that_of_every_tenant(make_world):
    world = make_world(quotas=Quotas(connections_per_tenant=5), tenant_of=lambda client_id: client_id[0])
    world.broker.gate.limit_tenants(quotas_by_name(a=TenantQuota(connections=1, retained_bytes=60)))
    assert world.connect("a-1").connack.reason_code == 0
    refused = world.connect("a-2").connack
    assert (refused.reason_code, refused.reason_string[:29]) == (0x97, "at most 1 connections of a te")
    assert [world.connect(f"b-{number}").connack.reason_code for number in range(3)] == [0, 0, 0]
    room = world.broker.gate.retained
    assert room.tenant_max_of("a") == 60
    assert room.tenant_max_of("b") == 0


def test_a_changed_quota_counts_for_who_is_connected(make_world):
    quotas = {}
    world = make_world(tenant_of=lambda client_id: client_id[0])
    world.broker.gate.limit_tenants(lambda tenant: quotas.get(tenant, TenantQuota()))
    peer, other = world.connect("a-1"), world.connect("b-1")
    assert peer.client.meter is None
    quotas["a"] = TenantQuota(messages_per_s=1)
    world.broker.gate.quota_changed("a", world.broker.clients.values(), world.now)
    assert other.client.meter is None
    assert peer.client.meter.exceeded(9, world.now) == ""
    for _ in range(BURST_S - 1):
        peer.client.meter.exceeded(9, world.now)
    assert peer.client.meter.exceeded(9, world.now) == "at most 1 messages/s for tenant a"
    quotas.clear()
    world.broker.gate.quota_changed("a", world.broker.clients.values(), world.now)
    assert peer.client.meter is None
