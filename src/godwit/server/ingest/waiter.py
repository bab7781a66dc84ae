"""Waiting for a message that came by another way than MQTT: over HTTP, or out of quarantine."""

import asyncio
from collections.abc import Callable

from godwit.mqtt.packets import Publish
from godwit.server.ingest.arrival import Arrival
from godwit.server.ingest.door import Outcome


class Waiter:
    """Waits for one arrival that came by another way than MQTT."""

    def __init__(self, forward: Callable[[Publish], None] | None) -> None:
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._forward = forward

    def settle(self, arrival: Arrival) -> None:
        """Tell the outcome, and let subscribers have the message."""
        if not arrival.code and self._forward is not None:
            self._forward(arrival.publish)
        if not self.done.done():
            self.done.set_result(Outcome(arrival.accepted, arrival.duplicate, arrival.code, arrival.detail))
