"""Enrollment over MQTT: a request that is durable goes to the enroller in a thread, its answer to that client alone.

An answer is posted on the client's topic, where it also waits for a client that was cut off. What many devices have in
common, a fleet claim, does not tell two of them apart that call themselves alike: its answers go to the connection that
asked, now, or to nobody; the device asks again, and the same key is answered the same.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from godwit.contract.enrollment import EnrollmentGrant, decode_request, encode
from godwit.contract.errors import MalformedError
from godwit.contract.topics import EnrollmentStep, enrollment_topic
from godwit.mqtt.packets import Publish
from godwit.server.broker.client import Client
from godwit.server.identity.enroller import Enroller
from godwit.server.identity.model import Credential, Source
from godwit.server.ingest.arrival import Arrival

UNDER_WAY_MAX: Final = 200
Answer = Callable[[EnrollmentGrant | None], None]
Aside = Callable[[Callable[[], EnrollmentGrant], Answer], None]


class Requested:
    """The source of a request on its way through the group commit."""

    __slots__ = ("_client", "_credential", "_enrolling")

    def __init__(self, enrolling: "Enrolling", client: Client) -> None:
        self._enrolling, self._client = enrolling, client
        self._credential = client.credential  # which is forgotten when the connection is gone

    def settle(self, arrival: Arrival) -> None:
        """Acknowledge the request, and see to it."""
        self._client.settle(arrival)
        if not arrival.code:
            self._enrolling.take(self._client, self._credential, arrival.publish)


class Enrolling:
    """Lives on the broker loop. One request of a client at a time, and a bounded number of all."""

    def __init__(
        self, enroller: Enroller, aside: Aside, post: Callable[[Publish], object], tell: Callable[[Publish], object]
    ) -> None:
        """`post` publishes for good, `tell` at once, to whoever hears it now."""
        self._enroller, self._aside, self._post, self._tell = enroller, aside, post, tell
        self._under_way: set[Client] = set()

    def take(self, client: Client, credential: Credential | None, publish: Publish) -> None:
        """Have a request answered."""
        client_id = publish.topic.split("/")[1]
        answer = partial(self._answer, client, credential, client_id)
        if client in self._under_way:
            return  # the answer to the one before is on its way
        if len(self._under_way) >= UNDER_WAY_MAX:
            answer(_refusal(client_id, "busy", "too many enroll at once: ask again in 5 s"))
            return
        self._under_way.add(client)
        address = client.address

        def ask() -> EnrollmentGrant:
            try:
                asked = decode_request(publish.payload, publish.properties.content_type)
            except MalformedError as error:
                return _refusal(client_id, error.code, str(error))
            if asked.device_id != client_id:
                return _refusal(client_id, "client-id-mismatch", "the request is for another id than its topic")
            return self._enroller.enroll(asked, credential, Source.CLAIM, address=address)

        def done(grant: EnrollmentGrant | None) -> None:
            self._under_way.discard(client)
            answer(grant or _refusal(client_id, "unavailable", "nobody can enroll now: ask again"))

        self._aside(ask, done)

    def _answer(self, client: Client, credential: Credential | None, client_id: str, grant: EnrollmentGrant) -> None:
        publish = Publish(enrollment_topic(client_id, EnrollmentStep.GRANT), encode(grant), 2)
        if credential is None or not credential.is_shared:
            self._post(publish)
        elif not client.is_over and client.closed is None:  # while it is there, nobody else has its client id
            self._tell(publish)


def _refusal(client_id: str, code: str, message: str) -> EnrollmentGrant:
    return EnrollmentGrant(device_id=client_id, code=code, message=message)
