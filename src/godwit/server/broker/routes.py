"""Where a topic leads: its place in the contract and its subscribers, kept until a subscription changes.

One dictionary lookup per message answers what the topic is and who listens. Overlapping subscriptions of a session are
merged into one delivery (3.3.4: the highest QoS, all identifiers). A shared subscription (4.8.2) is one target with
several members.
"""

from typing import Final, NamedTuple, TypeAlias

from godwit.contract.errors import MalformedError
from godwit.contract.ids import parse_device_id
from godwit.contract.topics import COMMAND_ALIASES, Channel, DeviceTopic, Topics, parse_enrollment, resolve_alias
from godwit.mqtt.server_message import Delivery, Message
from godwit.mqtt.server_session import Held, Session
from godwit.mqtt.topic_tree import TopicTree
from godwit.server.broker.rights import is_reserved

UP: Final = frozenset(
    {
        Channel.TELEMETRY,
        Channel.STATUS,
        Channel.EVENTS,
        Channel.COMMAND_RESULTS,
        Channel.TWIN_GET,
        Channel.TWIN_REPORTED,
        Channel.FIRMWARE_PROGRESS,
    }
)
"""Channels by which a device speaks: these go to ingest first."""

ROUTES_MAX: Final = 50_000
KEPT_TOPIC_CHARACTERS_MAX: Final = 512
"""The route of a longer topic is worked out each time: topics may have 65,535 bytes, and there are many of them."""
SHARE_PREFIX: Final = "$share/"


class SharedGroup:
    """The members of one shared subscription."""

    __slots__ = ("members",)

    def __init__(self) -> None:
        self.members: dict[Session, Held] = {}

    def pick(self, entitled: tuple[Session, ...] = ()) -> Session:
        """Choose who gets the next message: a connected member with the least before it, each in turn.

        Without one, the absent member that waits for the least; so work is not parked with a worker that is away
        while another is there.
        """
        chosen = min((each for each in self.members if not entitled or each in entitled), key=_burden)
        self.members[chosen] = self.members.pop(chosen)  # among equals the one whose turn is longest ago is first
        return chosen

    @property
    def is_durable(self) -> bool:
        """Whether a member's queue is kept in the journal."""
        return any(keeps_queue(session) for session in self.members)


def _burden(session: Session) -> tuple[bool, int]:
    return session.connection is None, len(session.inflight) + len(session.queue or ())


def keeps_queue(session: Session) -> bool:
    """Whether the journal keeps what `session` has not taken: sessions of applications that outlive a connection.

    What is owed to a device is kept by the rooms that owe it.
    """
    return session.is_stored and not session.is_device


Key: TypeAlias = Session | SharedGroup


class Target(NamedTuple):
    """A subscriber of a topic."""

    session: Session | None
    group: SharedGroup | None
    qos: int
    retain_as_published: bool
    subscription_ids: tuple[int, ...]
    is_durable: bool
    is_own_too: bool
    """Whether the session gets its own messages on the same terms (3.8.3.1, No Local)."""
    own: "Target | None"
    """What it gets of its own messages if not: None, nothing."""
    entitled: tuple[Session, ...] = ()
    """The members of a shared subscription that may be told of this topic; empty: all."""


class Route:
    """What is known of a topic."""

    __slots__ = ("has_durable", "is_reserved", "is_special", "is_up", "malformed", "place", "targets", "version")

    def __init__(self, topic: str, topics: Topics) -> None:
        self.place: DeviceTopic | None = None
        self.malformed: MalformedError | None = None
        try:
            self.place = topics.parse(topic)
        except MalformedError as error:
            self.malformed = error
        self.is_up = self.place is not None and self.place.channel in UP
        self.is_special = self.malformed is not None or (
            topic[:11] == "enrollment/" and parse_enrollment(topic) is not None
        )
        """Whether it is no ordinary topic of the broker, and yet none that ingest takes."""
        self.is_reserved = topic[:1] == "$" and is_reserved(topic)
        self.targets: tuple[Target, ...] = ()
        self.has_durable = False
        self.version = -1


class Routes:
    """All subscriptions, and the routes that follow from them."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._tree: TopicTree[Key, Held] = TopicTree()
        self._groups: dict[str, SharedGroup] = {}
        self._routes: dict[str, Route] = {}
        self._version = 0
        self.count = 0
        """Subscriptions."""

    @property
    def shared_count(self) -> int:
        """How many shared subscriptions there are, however many members each has."""
        return len(self._groups)

    def route(self, topic: str) -> Route:
        """Return the route of a topic, with its subscribers as they are now."""
        route = self._routes.get(topic)
        if route is None:
            route = Route(topic, self._topics)
            if len(topic) <= KEPT_TOPIC_CHARACTERS_MAX:
                if len(self._routes) >= ROUTES_MAX:
                    self._routes.clear()
                self._routes[topic] = route
        if route.version != self._version:
            route.version = self._version
            route.targets = self._targets(topic, route.place)
            route.has_durable = any(target.is_durable for target in route.targets)
        return route

    def may_receive(self, session: Session, topic: str) -> bool:
        """Whether a session may be told what has waited for it, by its rights as they are now."""
        if session.rights is None:
            return True
        known = self._routes.get(topic)
        return _may_receive(session, topic, known.place if known is not None else Route(topic, self._topics).place)

    def refresh(self) -> None:
        """Have routes worked out anew: what a session is has changed."""
        self._version += 1

    def subscribe(self, session: Session, held: Held) -> bool:
        """Add a subscription, or replace its options; True if it is new."""
        full = held.options.topic_filter
        is_new = full not in session.subscriptions
        session.subscriptions[full] = held
        if full.startswith(SHARE_PREFIX):
            group = self._groups.get(full)
            if group is None:
                group = self._groups[full] = SharedGroup()
                self._tree.add(bare_filter(full), group, held)
            group.members[session] = held
        else:
            for heard in heard_filters(session, full):
                if heard == full or heard not in session.subscriptions:
                    self._tree.add(heard, session, held)
        self._version += 1
        self.count += is_new
        return is_new

    def unsubscribe(self, session: Session, full: str) -> bool:
        """Take a subscription away; False if there was none."""
        if session.subscriptions.pop(full, None) is None:
            return False
        if full.startswith(SHARE_PREFIX):
            group = self._groups[full]
            del group.members[session]
            if not group.members:
                del self._groups[full]
                self._tree.remove(bare_filter(full), group)
        else:
            for heard in heard_filters(session, full):
                if heard not in session.subscriptions:
                    self._tree.remove(heard, session)
            for alias in COMMAND_ALIASES:  # it may go on to mean the filter that was taken away
                if alias in session.subscriptions and full in heard_filters(session, alias):
                    self._tree.add(full, session, session.subscriptions[alias])
        self._version += 1
        self.count -= 1
        return True

    def _targets(self, topic: str, place: DeviceTopic | None) -> tuple[Target, ...]:
        found: dict[Session, list[Held]] = {}
        targets = []
        for key, held in self._tree.match(topic):
            if isinstance(key, SharedGroup):
                entitled = tuple(each for each in key.members if _may_receive(each, topic, place))
                if entitled:
                    targets.append(
                        Target(
                            None, key, 0, held.options.retain_as_published, (), key.is_durable,
                            is_own_too=True, own=None, entitled=entitled if len(entitled) < len(key.members) else (),
                        )
                    )  # fmt: skip
            elif _may_receive(key, topic, place):
                found.setdefault(key, []).append(held)
        targets.extend(_merge(session, each) for session, each in found.items())
        return tuple(targets)


def _may_receive(session: Session, topic: str, place: DeviceTopic | None) -> bool:
    return session.rights is None or bool(session.rights.may_receive(topic, place))


def _merge(session: Session, subscriptions: list[Held]) -> Target:
    own_subscriptions = [held for held in subscriptions if not held.options.no_local]
    if len(own_subscriptions) == len(subscriptions):
        return _target(session, subscriptions, None)._replace(is_own_too=True)
    own = _target(session, own_subscriptions, None) if own_subscriptions else None
    return _target(session, subscriptions, own)


def _target(session: Session, subscriptions: list[Held], own: Target | None) -> Target:
    return Target(
        session=session,
        group=None,
        qos=max(held.options.qos for held in subscriptions),
        retain_as_published=any(held.options.retain_as_published for held in subscriptions),
        subscription_ids=tuple(held.subscription_id for held in subscriptions if held.subscription_id),
        is_durable=keeps_queue(session),
        is_own_too=False,
        own=own,
    )


def choose(target: Target, publisher: Session | None) -> tuple[Session, Target] | None:
    """Say which session gets a message, and on what terms; None: nobody (No Local)."""
    group = target.group
    if group is not None:
        member = group.pick(target.entitled)
        held = group.members[member]
        ids = (held.subscription_id,) if held.subscription_id else ()
        return member, target._replace(qos=held.options.qos, subscription_ids=ids)
    session = target.session
    assert session is not None
    if session is not publisher or target.is_own_too:
        return session, target
    return None if target.own is None else (session, target.own)


def delivery_of(message: Message, target: Target) -> Delivery:
    """Return a message on its way to a subscriber."""
    return Delivery(
        message,
        min(target.qos, message.qos),
        retain=message.retain and target.retain_as_published,
        subscription_ids=target.subscription_ids,
    )


def heard_filters(session: Session, full: str) -> tuple[str, ...]:
    """Return what a filter means: itself and, for a device's alias, also its own topics of the contract."""
    if full not in COMMAND_ALIASES:
        return (full,)
    try:
        device_id = parse_device_id(session.client_id)
    except MalformedError:
        return (full,)
    return (full, resolve_alias(full, device_id))


def bare_filter(topic_filter: str) -> str:
    """Return a filter without its `$share/{name}/` prefix."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith(SHARE_PREFIX) else topic_filter
