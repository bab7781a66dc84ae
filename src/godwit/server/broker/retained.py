"""Retained documents (3.3.1.3): the last of each topic, found by filter without looking at all of them."""

import heapq
from collections.abc import Iterator
from typing import Any

from godwit.mqtt.server_message import Message
from godwit.mqtt.topics import LEVELS_MAX, matches


class Retained:
    """The retained documents, by topic and as a tree by topic level. The key None of a node holds the document itself.

    A topic of more levels than a subscription may have stands beside the tree: a level there costs a dictionary.
    """

    def __init__(self) -> None:
        self._by_topic: dict[str, Message] = {}
        self._root: dict[str | None, Any] = {}
        self._deep: set[str] = set()
        self._ends: list[tuple[int, str]] = []
        self._due: dict[str, int] = {}
        """When a topic is looked at for its document's expiry."""

    def __len__(self) -> int:
        return len(self._by_topic)

    def put(self, message: Message) -> None:
        """Keep `message` in place of what the topic had; an empty payload clears the topic."""
        topic = message.topic
        if not message.payload:
            self.drop(topic)
            return
        self._by_topic[topic] = message
        if _is_deep(topic):
            self._deep.add(topic)
        else:
            node = self._root
            for level in topic.split("/"):
                node = node.setdefault(level, {})
            node[None] = message
        if message.expires:
            self._watch(message)

    def drop(self, topic: str) -> None:
        """Clear a topic."""
        if self._by_topic.pop(topic, None) is None:
            return
        if _is_deep(topic):
            self._deep.remove(topic)
            return
        path: list[tuple[dict[str | None, Any], str]] = []
        node = self._root
        for level in topic.split("/"):
            path.append((node, level))
            node = node[level]
        del node[None]
        for parent, level in reversed(path):
            if parent[level]:
                break
            del parent[level]

    def get(self, topic: str) -> Message | None:
        """Return the document of one topic."""
        return self._by_topic.get(topic)

    def match(self, topic_filter: str, now: int) -> list[Message]:
        """Return the documents that a filter matches and that have not expired.

        Topics that begin with `$` are not matched by a filter that begins with a wildcard (4.7.2).
        """
        levels = topic_filter.split("/")
        if "+" not in levels and "#" not in levels:
            exact = self.get(topic_filter)
            found = [] if exact is None else [exact]
        else:
            found = list(_walk(self._root, levels))
            found.extend(self._by_topic[topic] for topic in self._deep if matches(topic_filter, topic))
        return [message for message in found if not message.expires or message.expires > now]

    def expired(self, now: int) -> list[Message]:
        """Return documents that have expired, each once, to be dropped."""
        found = []
        while self._ends and self._ends[0][0] <= now:
            due, topic = heapq.heappop(self._ends)
            if self._due.get(topic) != due:
                continue
            del self._due[topic]
            message = self.get(topic)
            if message is None or not message.expires:
                continue
            if message.expires <= now:
                found.append(message)
            else:
                self._watch(message)
        return found

    def _watch(self, message: Message) -> None:
        """Have a document looked at when it expires; one that is replaced often stands in the heap once."""
        due = self._due.get(message.topic)
        if due is None or message.expires < due:
            self._due[message.topic] = message.expires
            heapq.heappush(self._ends, (message.expires, message.topic))


def _is_deep(topic: str) -> bool:
    return topic.count("/") >= LEVELS_MAX


def _walk(root: dict[str | None, Any], levels: list[str]) -> Iterator[Message]:
    """Yield what a filter with wildcards matches. A stack, not recursion: a topic may have 32,000 levels."""
    stack: list[tuple[dict[str | None, Any], int]] = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        if depth == len(levels):
            if None in node:
                yield node[None]
            continue
        level = levels[depth]
        if level == "#":
            yield from _below(node, with_reserved=depth > 0)
        elif level == "+":
            stack.extend(
                (child, depth + 1)
                for name, child in node.items()
                if name is not None and (depth or not name.startswith("$"))
            )
        elif level in node:
            stack.append((node[level], depth + 1))


def _below(root: dict[str | None, Any], *, with_reserved: bool = True) -> Iterator[Message]:
    """Yield every document at `root` and below."""
    stack = [root]
    is_top = not with_reserved
    while stack:
        node = stack.pop()
        for name, child in node.items():
            if name is None:
                yield child
            elif not (is_top and name.startswith("$")):
                stack.append(child)
        is_top = False
