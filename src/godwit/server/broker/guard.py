"""Open sessions, looked after: each ends when its credential does, and when somebody takes its rights away.

What is changed elsewhere is told here on the broker loop, after the commit: who is concerned is judged again as at a
CONNECT, and is told why when it has to go (MQTT 5: 0x98, administrative action; 0xA0, maximum connect time).
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from godwit.contract.ids import DeviceId
from godwit.mqtt import reasons
from godwit.server.broker.client import Client
from godwit.server.broker.refusals import Denial
from godwit.server.broker.rights import LOOPBACK, Grant
from godwit.server.broker.schedule import Schedule
from godwit.server.identity.model import (
    Authority,
    Certificate,
    Change,
    Claim,
    ClaimState,
    Credential,
    DeviceKey,
    DeviceToken,
    Door,
    PlatformKey,
)
from godwit.server.registry.model import Device, DeviceType

SHOWN: Final = (Door.CERTIFICATE, Door.ENDED, Door.FACTORY)
"""Credentials that are certificates."""


class Judge(Protocol):
    """Who knows whether a credential still counts."""

    def judge_again(self, credential: Credential, certificate: bytes | None, client_id: str) -> Denial | None:
        """Return why a client that came in would not come in now, or None."""
        ...

    def judge_absent(self, credential: Credential, client_id: str) -> Denial | None:
        """Return why a client that is gone would not be heard any more: its credential or device was taken away.

        That the credential has ended meanwhile is no reason.
        """
        ...

    def judge_stranger(self, client_id: str) -> Denial | None:
        """Return why a client of the loopback listener would not come in now, or None."""
        ...


class Guard:
    """Who came in with which credential. Lives on the broker loop."""

    def __init__(self, judge: Judge | None) -> None:
        self._judge = judge
        self._by_device: dict[str, set[Client]] = {}
        self._by_credential: dict[str, set[Client]] = {}
        self._strangers: dict[str, Client] = {}
        self._ends: Schedule[Client] = Schedule()
        self.asked: dict[Client, Callable[[], Denial | None]] = {}
        """Of whom nobody tells when their rights change: they are asked about again and again."""
        self.ended = 0
        """Sessions that were ended here, since start."""

    def accepted(self, client: Client, grant: Grant) -> None:
        """Look after a client from now on."""
        credential = client.credential = grant.credential
        client_id = client.peer.client_id
        if client.listener in LOOPBACK:
            self._strangers[client_id] = client
        if grant.still is not None:
            self.asked[client] = grant.still
        if credential is None:
            return
        self._by_credential.setdefault(credential.name, set()).add(client)
        if credential.device_id is not None:
            self._by_device.setdefault(credential.device_id, set()).add(client)
        if credential.ends:
            self._ends.put(client_id, credential.ends, client)

    def parted(self, client: Client) -> None:
        """Forget a client that is gone."""
        client_id, credential = client.peer.client_id, client.credential
        if self._strangers.get(client_id) is client:
            del self._strangers[client_id]
        self.asked.pop(client, None)
        if credential is None:
            return
        _discard(self._by_credential, credential.name, client)
        if credential.device_id is not None:
            _discard(self._by_device, credential.device_id, client)
        client.credential = None

    def tick(self, now: int) -> None:
        """End the sessions whose credential has ended."""
        for _, client in self._ends.due(now):
            credential = client.credential
            if credential is None:
                continue
            if credential.ends > now:  # another connection of that id, since
                self._ends.put(client.peer.client_id, credential.ends, client)
            else:
                self._end(client, reasons.MAXIMUM_CONNECT_TIME, f"the {credential.door} has ended")

    def follow(self, change: Change | Device | DeviceType | DeviceId) -> None:
        """Judge again whom a change concerns."""
        if isinstance(change, Certificate):
            self._judge_again(self._by_credential.get(change.fingerprint, ()))
        elif isinstance(change, DeviceToken):
            self._judge_again(self._by_credential.get(change.token_id, ()))
        elif isinstance(change, DeviceKey):
            self._judge_again(self._by_credential.get(change.key_id, ()))
        elif isinstance(change, Claim):
            if change.state is ClaimState.REVOKED:
                for client in list(self._by_credential.get(change.claim_id, ())):
                    self._end(client, reasons.ADMINISTRATIVE_ACTION, "the claim is revoked")
        elif isinstance(change, Authority):
            self._judge_again(
                client
                for clients in list(self._by_credential.values())
                for client in clients
                if client.credential is not None and client.credential.door in SHOWN
            )
        elif not isinstance(change, DeviceType | PlatformKey):
            device_id = change.device_id if isinstance(change, Device) else change
            self._judge_again(self._by_device.get(device_id, ()))
            self._judge_stranger(device_id)

    def _judge_again(self, clients: Iterable[Client]) -> None:
        if self._judge is None:
            return
        for client in list(clients):
            if client.credential is None:
                continue
            denial = self._judge.judge_again(client.credential, client.certificate, client.peer.client_id)
            if denial is not None:
                self._end(client, reasons.ADMINISTRATIVE_ACTION, denial.text)

    def _judge_stranger(self, client_id: str) -> None:
        client = self._strangers.get(client_id)
        if client is None or self._judge is None:
            return
        denial = self._judge.judge_stranger(client_id)
        if denial is not None:
            self._end(client, reasons.ADMINISTRATIVE_ACTION, denial.text)

    def judge_absent(self, credential: Credential, client_id: str) -> Denial | None:
        """Return why a client that is gone would not be heard any more."""
        return self._judge.judge_absent(credential, client_id) if self._judge is not None else None

    def deny(self, denials: Iterable[tuple[Client, Denial]]) -> None:
        """End sessions that were asked about; what they had left to be said is not said."""
        for client, denial in denials:
            if not client.is_over:
                client.core.will = None
                self._end(client, reasons.ADMINISTRATIVE_ACTION, denial.text)

    def _end(self, client: Client, reason_code: int, text: str) -> None:
        self.ended += 1
        client.core.close(reason_code, text)


def _discard(index: dict[str, set[Client]], key: str, client: Client) -> None:
    clients = index.get(key)
    if clients is not None:
        clients.discard(client)
        if not clients:
            del index[key]
