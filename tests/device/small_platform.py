"""As much of a platform as a device's credentials need: MQTT over TLS, enrollment, and somebody who says no."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from authorities import Authority
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from godwit.contract.enrollment import EnrollmentGrant, EnrollmentRequest, decode_request, encode
from godwit.contract.payloads import unpacked
from godwit.mqtt import packets as p
from godwit.mqtt import reasons
from godwit.mqtt.codec import Decoder
from godwit.mqtt.codec import encode as encode_packet

Answer = Callable[[EnrollmentRequest], EnrollmentGrant | None]


class SmallPlatform:
    """Listens on loopback. `answer` decides over requests (None: silence), `is_welcome` over certificates.

    Its authority may be replaced while it runs: from the next connection on.
    """

    def __init__(self, directory: Path, authority: Authority, answer: Answer) -> None:
        self._directory, self.authority, self.answer = directory, authority, answer
        self.is_welcome: Callable[[str], bool] = lambda _fingerprint: True
        self.refusal = reasons.NOT_AUTHORIZED
        """What those hear who are not welcome."""
        self.only_renews: set[str] = set()
        """Certificates that have ended, and open their renewal."""
        self.renewed: list[str] = []
        """Those of them that did."""
        self.claim = "claim-1"
        self.requests: list[EnrollmentRequest] = []
        self.connects: list[tuple[str, str]] = []
        """(fingerprint of the certificate or empty, password) of everybody who was let in."""
        self.payloads: list[bytes] = []
        self.wires: set[Wire] = set()
        self.serves: tuple[str, str] = ("", "")
        """Certificate with chain, and key."""
        self.trusted = [authority.root]
        self._session: set[str] = set()

    async def start(self) -> "SmallPlatform":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Wire(self), "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break all connections."""
        for wire in list(self.wires):
            if wire.transport is not None:
                wire.transport.abort()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send to whoever is connected by a certificate."""
        for wire in self.wires:
            if wire.fingerprint:
                wire.publish(topic, payload)

    def context(self) -> ssl.SSLContext:
        files = self._directory / "platform.crt", self._directory / "platform.key"
        for path, text in zip(files, self.serves, strict=True):
            path.write_text(text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        context.load_verify_locations(cadata="".join(self.trusted))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= 0x200000  # the dates of tests are their own
        return context

    def is_known(self, device_id: str) -> bool:
        """Whether there is a session; from now on there is."""
        known = device_id in self._session
        self._session.add(device_id)
        return known


class Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self, platform: SmallPlatform) -> None:
        self._platform = platform
        self._decoder = Decoder("server")
        self.transport: asyncio.Transport | None = None
        self.fingerprint = ""
        self._packet_id = 0
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._task = asyncio.get_running_loop().create_task(self._secure(transport))  # type: ignore[arg-type]

    async def _secure(self, transport: asyncio.Transport) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, self, self._platform.context(), server_side=True, ssl_handshake_timeout=5
            )
        except (OSError, ssl.SSLError):
            return
        self.transport = secured
        self._platform.wires.add(self)
        if self._early:
            self.data_received(self._early)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._platform.wires.discard(self)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:  # it came with the last word of the handshake
            self._early += data
            return
        for packet in self._decoder.feed(data):
            self._take(packet)

    def _put(self, packet: p.Packet) -> None:
        assert self.transport is not None
        self.transport.write(encode_packet(packet, 5))

    def publish(self, topic: str, payload: bytes) -> None:
        self._packet_id += 1
        self._put(p.Publish(topic, payload, 2, packet_id=self._packet_id))

    def _take(self, packet: p.Packet) -> None:
        platform = self._platform
        if isinstance(packet, p.Connect):
            self._connect(packet)
        elif isinstance(packet, p.Subscribe):
            self._put(p.SubAck(packet.packet_id, tuple(each.qos for each in packet.subscriptions)))
        elif isinstance(packet, p.Publish) and packet.qos == 1:
            platform.payloads.append(unpacked(packet.payload, None))
            self._put(p.PubAck(packet.packet_id))
        elif isinstance(packet, p.Publish) and packet.qos == 2:
            self._put(p.PubRec(packet.packet_id))
            asked = decode_request(packet.payload)
            platform.requests.append(asked)
            grant = platform.answer(asked)
            if grant is not None:
                self.publish(f"enrollment/{asked.device_id}/grant", encode(grant))
        elif isinstance(packet, p.PubRel):
            self._put(p.PubComp(packet.packet_id))
        elif isinstance(packet, p.PubRec):
            self._put(p.PubRel(packet.packet_id))

    def _connect(self, connect: p.Connect) -> None:
        assert self.transport is not None
        platform, password = self._platform, (connect.password or b"").decode()
        der = self.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if der is not None:
            self.fingerprint = x509.load_der_x509_certificate(der).fingerprint(hashes.SHA256()).hex()
        is_good = platform.is_welcome(self.fingerprint) if der is not None else password == platform.claim
        if self.fingerprint in platform.only_renews:
            is_good = (connect.username, connect.client_id) == ("renewal", "")
            platform.renewed += [self.fingerprint] * is_good
        if not is_good:
            self._put(p.ConnAck(reason_code=platform.refusal))
            self.transport.close()
            return
        platform.connects.append((self.fingerprint, password))
        is_known = bool(der) and platform.is_known(connect.client_id)
        self._put(p.ConnAck(session_present=is_known, user_properties=(("godwit-ack", "stored"),)))
