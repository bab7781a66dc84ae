"""One connection to a foreign broker, for as long as the platform runs: connect, subscribe, read, wait, again.

The MQTT session is one across connections, so what either side had not acknowledged is sent again. Waits have full
jitter; they begin anew only after a connection that lasted, so that two platforms with one client id do not push each
other out without pause.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from random import random
from typing import Final

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.mqtt import packets as p
from godwit.mqtt.client import MqttClient
from godwit.mqtt.client_session import ClientSession, Delivered, raise_for
from godwit.mqtt.reasons import ReasonError
from godwit.runtime.backoff import Backoff
from godwit.server.foreign.terms import Terms

log = logging.getLogger(__name__)

LASTING_S: Final = 10.0
FIRST_WAIT_S: Final = 0.5
WAIT_S_MAX: Final = 30.0
CONGESTED_S: Final = 0.01
NOT_TRIED: Final = "the connection is being made"


class Link:
    """See the module. `take` gets each message; whoever takes it acknowledges it, on `client`.

    `dial` gives a socket that is connected already; else the terms say where to connect.
    """

    def __init__(
        self,
        terms: Terms,
        connect: p.Connect,
        subscriptions: Sequence[p.Subscription],
        take: Callable[[p.Publish], None],
        dial: Callable[[], Awaitable[socket.socket]] | None = None,
    ) -> None:
        self.terms = terms
        self.client: MqttClient | None = None
        """The connection, while there is one."""
        self.trouble = NOT_TRIED
        """Empty while we are connected and subscribed, else the sentence that says why not."""
        self.is_over = False
        """Whether the end of the connection is our own doing, and no news."""
        self.has_tried = asyncio.Event()
        self.on_session: Callable[[bool], None] = lambda _is_new: None
        """Called before the first message of a connection; True when the broker knew no session of ours."""
        self.on_up: Callable[[], None] = lambda: None
        """Called when `client` is there anew."""
        self.is_congested: Callable[[], bool] = lambda: False
        """While it says so, nothing is read."""
        self._subscriptions = tuple(subscriptions)
        self._take = take
        self._dial = dial
        self._asked = 0
        self._refusal: RejectedError | None = None
        self.session = ClientSession(connect)
        self.on_delivered: Callable[[Delivered], None] = lambda _answer: None
        """Hears of the answers to messages that were handed to `session`."""

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        backoff = Backoff(FIRST_WAIT_S, s_max=WAIT_S_MAX)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._connected()
            except (OSError, UnavailableError, RejectedError) as error:
                self._note(self.terms.explain(error))
            if loop.time() - began > LASTING_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s(random()))  # noqa: S311 - jitter is no secret

    async def _connected(self) -> None:
        """Go through one connection, from its beginning to its end, which raises UnavailableError."""
        terms = self.terms
        client = await MqttClient.connect(
            terms.host,
            terms.port,
            self.session.connect,
            tls=terms.tls,
            session=self.session,
            wire=None if self._dial is None else await self._dial(),
            on_delivered=self._answered,
        )
        try:
            self.on_session(not client.ack.session_present)
            self.client = client
            self.on_up()
            self._subscribe(client)
            async for publish in client.messages(acknowledge=False):
                self._take(publish)
                while self.is_congested():  # noqa: ASYNC110 - the hot path of others pays for no event
                    await asyncio.sleep(CONGESTED_S)
            raise self._refusal or UnavailableError(client.why_closed)
        finally:
            self.client = None
            client.abort()

    def _subscribe(self, client: MqttClient) -> None:
        """Ask, and read on: the answer may stand behind more messages than are held unread."""
        self._refusal = None
        if self._subscriptions:
            self._asked = self.session.subscribe(self._subscriptions)
            client.flush_soon()
        else:
            self._note("")

    def _answered(self, answer: Delivered) -> None:
        if answer.packet_id != self._asked:
            self.on_delivered(answer)
            return
        self._asked = 0
        try:
            raise_for(answer.reason_codes, answer.reason_string)
        except ReasonError as refusal:
            wanted = ", ".join(each.topic_filter for each in self._subscriptions)
            self._refusal = RejectedError(f"we may not subscribe: {refusal} (wanted: {wanted})")
            if self.client is not None:
                self.client.abort()
        else:
            self._note("")

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble and not self.is_over:
            if trouble:
                log.warning("%s", trouble)
            else:
                log.info("connected to the broker at %s", self.terms.address)
        self.trouble = trouble
        self.has_tried.set()
