"""A broker in a process of its own, with nothing behind it but its journal: for tests with real clients.

`python broker_process.py DIRECTORY PORT [--wire] [--workers]` prints its port when it listens.
`--wire` announces the limits that the wire cases expect, `--workers` puts two worker processes before it.
"""

import asyncio
import sys
from pathlib import Path
from time import time_ns

import uvloop

from godwit.contract.topics import DeviceTopic
from godwit.mqtt.packets import Connect
from godwit.mqtt.server_connection import Limits
from godwit.server.broker.broker import Broker
from godwit.server.broker.journal import Journal
from godwit.server.broker.listener import Server
from godwit.server.broker.rights import Grant
from godwit.server.broker.sys_topics import SysTopics
from godwit.server.ingest.arrival import Arrival
from godwit.server.workers.crew import Crew

WIRE_LIMITS = Limits(packet_bytes_max=2_000_000, receive_maximum=20, topic_alias_maximum=10, inflight_max=20)


class SomeTopicsForbidden:
    """Admits everybody; nobody may subscribe to `test/nosubscribe`, which suites ask for."""

    def authenticate(self, _listener: str, _connect: Connect, _certificate: bytes | None, _address: str) -> Grant:
        return Grant(rights=self, may_register=True)

    def rights_of(self, _identity: str, _terms: str, _client_id: str) -> None:
        return None

    def refusal(self, _topic: str, _place: object) -> str:
        return ""

    def may_receive(self, _topic: str, _place: object) -> bool:
        return True

    def sees(self, _device_id: str) -> bool:
        return True

    def may_subscribe(self, topic_filter: str) -> bool:
        return topic_filter != "test/nosubscribe"


class NoTopics:
    """No topic is one of the contract."""

    def parse(self, _topic: str) -> None:
        return None

    def build(self, where: DeviceTopic) -> str:
        raise NotImplementedError


class NoIntake:
    """Takes everything."""

    def receive(self, _arrival: Arrival) -> None:
        return


class NextTurnGroup:
    """Commits what gathered at the next turn of the loop."""

    is_congested = False
    stalled = ""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open: list[Arrival] = []

    def join(self, arrival: Arrival) -> None:
        if not self._open:
            asyncio.get_running_loop().call_soon(self._commit)
        self._open.append(arrival)

    def _commit(self) -> None:
        arrivals, self._open = self._open, []
        work = self._journal.seal()
        if work is not None:
            self._journal.write(work)
        for arrival in arrivals:
            arrival.source.settle(arrival)


async def serve(directory: Path, port: int, limits: Limits, workers: int) -> None:
    journal = Journal(directory / "broker.sqlite")
    broker = Broker(
        NoTopics(), NoIntake(), NextTurnGroup(journal), journal, SomeTopicsForbidden(), limits=limits, now=time_ns()
    )
    ticks = [SysTopics(broker, time_ns()).tick]
    if workers:
        crew = Crew(broker, workers, "native", ticks)
        print(crew.listen("local", "127.0.0.1", port), flush=True)
        await crew.start()
    else:
        print(await Server(broker, ticks).listen("local", "127.0.0.1", port), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    flags = sys.argv[3:]
    uvloop.run(
        serve(
            Path(sys.argv[1]),
            int(sys.argv[2]),
            WIRE_LIMITS if "--wire" in flags else Limits(keep_alive_s_max=60),
            2 if "--workers" in flags else 0,
        )
    )
