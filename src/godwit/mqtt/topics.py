"""Topic names and topic filters (MQTT 5, 4.7). Levels are not parsed recursively: 10,000 of them are only long."""

from typing import Final

LEVELS_MAX: Final = 128
"""More levels than this no subscription may have: each costs memory. A name may have them (only `#` matches it)."""


def is_topic_name(topic: str) -> bool:
    """Whether `topic` may be published to."""
    return bool(topic) and "+" not in topic and "#" not in topic and "\0" not in topic


def is_topic_filter(text: str) -> bool:
    """Whether `text` may be subscribed to; wildcards fill whole levels, `#` the last one (4.7.1)."""
    if not text or "\0" in text:
        return False
    if text.startswith("$share/"):
        return _is_shared(text)
    if "#" not in text and "+" not in text:
        return True
    levels = text.split("/")
    if any("#" in level for level in levels[:-1]):
        return False
    return all(level in ("+", "#") for level in levels if "+" in level or "#" in level)


def _is_shared(text: str) -> bool:
    """4.8.2: `$share/name/filter`, the name without wildcards."""
    parts = text.split("/", 2)
    if len(parts) < 3:
        return False
    name, inner = parts[1], parts[2]
    return bool(name) and "+" not in name and "#" not in name and is_topic_filter(inner)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription to `topic_filter` gets messages of `topic`; `$` topics need their `$` (4.7.2)."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)
