"""Topic aliases of one connection (MQTT 5, 3.3.2.3.4): a number in place of a topic that was said before."""

from typing import Final

from godwit.mqtt import reasons
from godwit.mqtt.packets import Publish
from godwit.mqtt.reasons import ProtocolViolation

GIVEN_MAX: Final = 256
TOPIC_CHARACTERS_MAX: Final = 1_024
"""What we give is remembered, for each connection: a peer may allow 65,535 topics of as many bytes."""


class AliasesIn:
    """The numbers that the peer has given."""

    __slots__ = ("_maximum", "_topics")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._topics: dict[int, str] = {}

    def resolve(self, packet: Publish) -> None:
        """Put the topic in place of its alias. Raises ProtocolViolation where there is none."""
        alias = packet.topic_alias
        assert alias is not None
        if not 0 < alias <= self._maximum:
            raise ProtocolViolation(reasons.TOPIC_ALIAS_INVALID, "topic alias above the maximum")
        if packet.topic:
            self._topics[alias] = packet.topic
        elif alias in self._topics:
            packet.topic = self._topics[alias]
        else:
            raise ProtocolViolation(reasons.PROTOCOL_ERROR, "topic alias unknown")


class AliasesOut:
    """The numbers that we give, to the first topics that are sent."""

    __slots__ = ("_maximum", "_numbers")

    def __init__(self, maximum: int) -> None:
        self._maximum = min(maximum, GIVEN_MAX)
        self._numbers: dict[str, int] = {}

    def take(self, topic: str) -> tuple[int | None, bool]:
        """Return the alias for `topic` and whether the topic must be sent with it."""
        numbers = self._numbers
        alias = numbers.get(topic)
        if alias is not None:
            return alias, False
        if len(numbers) >= self._maximum or len(topic) > TOPIC_CHARACTERS_MAX:
            return None, True
        alias = numbers[topic] = len(numbers) + 1
        return alias, True

    def forget(self, topic: str) -> None:
        """Drop the alias of a packet that was not sent: the peer may not know it. Its number is not used again."""
        if topic in self._numbers:
            self._numbers[f"\0{self._numbers.pop(topic)}"] = 0
