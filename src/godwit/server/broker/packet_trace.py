"""The packets of followed devices, as they are on the wire: decoded once more, and only for connections of theirs.

A connection is a device's when it has its id as client id, or has spoken for it. One that speaks for many (a gateway)
is shown as far as its packets concern the device.
"""

from typing import Final

from godwit.contract.errors import MalformedError
from godwit.contract.topics import Topics
from godwit.mqtt import packets as p
from godwit.mqtt.codec import Decoder
from godwit.mqtt.reasons import reason_name
from godwit.server.broker.client import Client
from godwit.server.ingest.trace import Trace, Traced, readable

_NAMED: Final = (p.PubAck, p.PubRec, p.PubRel, p.PubComp, p.SubAck, p.UnsubAck, p.Subscribe, p.Unsubscribe)


class _Reader:
    """Reads one direction of one connection."""

    def __init__(self, client: Client, *, is_inbound: bool) -> None:
        self.client = client
        version = client.core.version or None
        # a client of either direction is followed from the middle: the version is known then, CONNECT is past
        self._decoder = Decoder("server" if is_inbound else "client", version=version)
        self._aliases: dict[int, str] = {}

    def read(self, data: bytes) -> list[p.Packet]:
        """Return the packets of `data`, their topics in the place of aliases where these are known."""
        packets = self._decoder.feed(data)
        for each in packets:
            if isinstance(each, p.Publish) and each.topic_alias is not None:
                if each.topic:
                    self._aliases[each.topic_alias] = each.topic
                else:
                    each.topic = self._aliases.get(each.topic_alias, "")
        return packets


class PacketTrace:
    """Tells the packets of followed devices. Called only while somebody follows."""

    def __init__(self, trace: Trace, topics: Topics) -> None:
        self._trace = trace
        self._topics = topics
        self._followed = trace.devices
        self._readers: dict[tuple[int, bool], _Reader] = {}
        self._asked: dict[int, dict[int, str]] = {}
        """By connection: packet id -> device, of what waits for an answer on connections of many devices."""

    def received(self, client: Client, data: bytes, now: int) -> None:
        """Bytes came, before the session saw them."""
        if self._devices(client) or client.core.session is None:
            self._read(client, data, now, is_inbound=True)

    def taken(self, client: Client, publishes: list[p.Publish], now: int) -> None:
        """Show publishes that were read elsewhere."""
        if self._devices(client):
            for packet in publishes:
                self._tell(client, packet, now, is_inbound=True)

    def sent(self, client: Client, data: bytes, now: int) -> None:
        """Bytes leave."""
        if self._devices(client):
            self._read(client, data, now, is_inbound=False)

    def parted(self, client: Client, why: str, now: int) -> None:
        """Note that a connection is over."""
        for device_id in self._devices(client):
            self._trace.tell(
                Traced("connection", now, device_id, client_id=client.peer.client_id, name="closed", detail=why)
            )
        for is_inbound in (True, False):
            self._readers.pop((id(client), is_inbound), None)
        self._asked.pop(id(client), None)

    def _devices(self, client: Client) -> set[str]:
        followed = self._trace.devices
        if followed is not self._followed:  # what was read before has gaps by now
            self._followed = followed
            self._readers, self._asked = {}, {}
        found = {each for each in followed if each in client.devices}
        if client.peer.client_id in followed:
            found.add(client.peer.client_id)
        return found

    def _read(self, client: Client, data: bytes, now: int, *, is_inbound: bool) -> None:
        key = (id(client), is_inbound)
        reader = self._readers.get(key)
        if reader is None or reader.client is not client:
            if is_inbound and client.core.is_amid_packet:
                return  # the beginning of this packet has not been seen: the next one
            reader = self._readers[key] = _Reader(client, is_inbound=is_inbound)
        for packet in reader.read(data):
            if isinstance(packet, p.Connect) and packet.client_id not in self._followed:
                del self._readers[key]  # somebody else's
                return
            self._tell(client, packet, now, is_inbound=is_inbound)

    def _tell(self, client: Client, packet: p.Packet, now: int, *, is_inbound: bool) -> None:
        for device_id in self._concerned(client, packet):
            self._trace.tell(_event(packet, device_id, client, now, is_inbound=is_inbound))

    def _concerned(self, client: Client, packet: p.Packet) -> set[str]:
        """Say which of the followed devices a packet is about."""
        if isinstance(packet, p.Connect):
            return {packet.client_id} & self._trace.devices
        devices = self._devices(client)
        if len(client.devices) <= 1:
            return devices
        asked = self._asked.setdefault(id(client), {})
        if isinstance(packet, p.Publish):
            about = self._device_of(packet.topic)
            if packet.packet_id and about:
                asked[packet.packet_id] = about
            return {about} & devices
        if isinstance(packet, p.PubAck | p.PubRec | p.PubRel | p.PubComp):
            return {asked.get(packet.packet_id, "")} & devices
        return devices if client.peer.client_id in devices else set()

    def _device_of(self, topic: str) -> str:
        try:
            place = self._topics.parse(topic)
        except MalformedError:
            return ""
        return place.device_id if place is not None else ""


def _event(packet: p.Packet, device_id: str, client: Client, now: int, *, is_inbound: bool) -> Traced:
    name = type(packet).__name__.upper()
    direction = "in" if is_inbound else "out"
    client_id = packet.client_id if isinstance(packet, p.Connect) else client.peer.client_id
    if isinstance(packet, p.Publish):
        return Traced(
            "packet", now, device_id, client_id, direction, name, topic=packet.topic, qos=packet.qos,
            retain=packet.retain, dup=packet.dup, packet_id=packet.packet_id, size=len(packet.payload),
            payload=readable(packet.payload),
        )  # fmt: skip
    packet_id = packet.packet_id if isinstance(packet, _NAMED) else 0
    code, detail = _said(packet)
    return Traced(
        "packet", now, device_id, client_id, direction, name, packet_id=packet_id, reason_code=code, detail=detail
    )


def _said(packet: p.Packet) -> tuple[int | None, str]:
    """Return a packet's reason code and what else it says, for people."""
    if isinstance(packet, p.Connect):
        will = f", will on {packet.will.topic}" if packet.will else ""
        version = "5" if packet.version == 5 else "3.1.1"
        start = "new session" if packet.clean_start else "goes on with its session"
        return None, f"MQTT {version}, keep-alive {packet.keep_alive} s, {start}{will}"
    if isinstance(packet, p.Subscribe):
        return None, ", ".join(f"{each.topic_filter} (QoS {each.qos})" for each in packet.subscriptions)
    if isinstance(packet, p.Unsubscribe):
        return None, ", ".join(packet.topic_filters)
    if isinstance(packet, p.SubAck | p.UnsubAck):
        return None, ", ".join(reason_name(each) if each > 2 else f"QoS {each}" for each in packet.reason_codes)
    if isinstance(packet, p.PingReq | p.PingResp):
        return None, ""
    code = packet.reason_code if not isinstance(packet, p.Publish) else 0
    said = getattr(packet, "reason_string", None)
    words = reason_name(code) if code else ""
    return code, f"{words}: {said}" if words and said else words or said or ""
