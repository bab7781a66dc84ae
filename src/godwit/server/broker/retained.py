"""Retained documents (3.3.1.3): the last of each topic, found by filter without looking at all of them."""

from collections.abc import Iterator
from typing import Any

from godwit.mqtt.server_message import Message


class Retained:
    """The retained documents, as a tree by topic level. The key None of a node holds the document itself."""

    def __init__(self) -> None:
        self._root: dict[str | None, Any] = {}
        self._count = 0
        self.bytes = 0
        """Size of all payloads."""

    def __len__(self) -> int:
        return self._count

    def put(self, message: Message) -> None:
        """Keep `message` in place of what the topic had; an empty payload clears the topic."""
        if not message.payload:
            self.drop(message.topic)
            return
        node = self._root
        for level in message.topic.split("/"):
            node = node.setdefault(level, {})
        before: Message | None = node.get(None)
        if before is None:
            self._count += 1
        else:
            self.bytes -= len(before.payload)
        self.bytes += len(message.payload)
        node[None] = message

    def drop(self, topic: str) -> None:
        """Clear a topic."""
        path: list[tuple[dict[str | None, Any], str]] = []
        node = self._root
        for level in topic.split("/"):
            child = node.get(level)
            if child is None:
                return
            path.append((node, level))
            node = child
        message: Message | None = node.pop(None, None)
        if message is None:
            return
        self._count -= 1
        self.bytes -= len(message.payload)
        for parent, level in reversed(path):
            if parent[level]:
                break
            del parent[level]

    def get(self, topic: str) -> Message | None:
        """Return the document of one topic."""
        node = self._root
        for level in topic.split("/"):
            child = node.get(level)
            if child is None:
                return None
            node = child
        found: Message | None = node.get(None)
        return found

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
        return [message for message in found if not message.expires or message.expires > now]

    def expired(self, now: int) -> list[str]:
        """Return the topics whose document has expired."""
        return [each.topic for each in _below(self._root) if each.expires and each.expires <= now]


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
