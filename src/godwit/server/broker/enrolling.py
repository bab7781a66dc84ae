"""Enrollment over MQTT: a request that is durable goes to the enroller in a thread, its answer to that client alone."""

from collections.abc import Callable
from typing import Final

from godwit.contract.enrollment import EnrollmentGrant, decode_request, encode
from godwit.contract.errors import MalformedError
from godwit.contract.topics import EnrollmentStep, enrollment_topic
from godwit.mqtt.packets import Publish
from godwit.server.broker.client import Client
from godwit.server.identity.enroller import Enroller
from godwit.server.identity.model import Source
from godwit.server.ingest.arrival import Arrival

UNDER_WAY_MAX: Final = 200
Answer = Callable[[EnrollmentGrant | None], None]
Aside = Callable[[Callable[[], EnrollmentGrant], Answer], None]


class Requested:
    """The source of a request on its way through the group commit."""

    __slots__ = ("_client", "_enrolling")

    def __init__(self, enrolling: "Enrolling", client: Client) -> None:
        self._enrolling, self._client = enrolling, client

    def settle(self, arrival: Arrival) -> None:
        """Acknowledge the request, and see to it."""
        self._client.settle(arrival)
        if not arrival.code:
            self._enrolling.take(self._client, arrival.publish)


class Enrolling:
    """Lives on the broker loop. One request of a client at a time, and a bounded number of all."""

    def __init__(self, enroller: Enroller, aside: Aside, post: Callable[[Publish], object]) -> None:
        self._enroller, self._aside, self._post = enroller, aside, post
        self._under_way: set[str] = set()

    def take(self, client: Client, publish: Publish) -> None:
        """Have a request answered."""
        client_id = publish.topic.split("/")[1]
        if client_id in self._under_way:
            return  # the answer to the one before is on its way
        if len(self._under_way) >= UNDER_WAY_MAX:
            self._answer(client_id, _refusal(client_id, "busy", "too many enroll at once: ask again in 5 s"))
            return
        self._under_way.add(client_id)
        credential, address = client.credential, client.address

        def ask() -> EnrollmentGrant:
            try:
                asked = decode_request(publish.payload, publish.properties.content_type)
            except MalformedError as error:
                return _refusal(client_id, error.code, str(error))
            if asked.device_id != client_id:
                return _refusal(client_id, "client-id-mismatch", "the request is for another id than its topic")
            return self._enroller.enroll(asked, credential, Source.CLAIM, address=address)

        self._aside(ask, lambda grant: self._done(client_id, grant))

    def _done(self, client_id: str, grant: EnrollmentGrant | None) -> None:
        self._under_way.discard(client_id)
        self._answer(client_id, grant or _refusal(client_id, "unavailable", "nobody can enroll now: ask again"))

    def _answer(self, client_id: str, grant: EnrollmentGrant) -> None:
        self._post(Publish(enrollment_topic(client_id, EnrollmentStep.GRANT), encode(grant), 2))


def _refusal(client_id: str, code: str, message: str) -> EnrollmentGrant:
    return EnrollmentGrant(device_id=client_id, code=code, message=message)
