"""Refuses JSON objects with the same key twice, at nearly no cost (RFC 8259, 4: such objects are unpredictable).

A device sends the same shape all its life; only digits change. So a payload is reduced to its *skeleton*, all digits,
signs, dots and hexadecimal letters deleted. A skeleton whose own keys, as they stand in it, are unique in each object
is
remembered: keys that differ after the deletion differed before, so no payload with that skeleton holds a duplicate.
"""

import json
import re
from typing import Final

from godwit.contract import codes
from godwit.contract.errors import MalformedError

_DELETED: Final = b"0123456789+-.abcdefABCDEF"
_TOKEN: Final = re.compile(rb'"([^"]*)"(\s*:)?|[{}]')
_KEPT_MAX: Final = 4_096
_verified: set[bytes] = set()


def check_duplicate_keys(payload: bytes) -> None:
    """Raise MalformedError (`duplicate-key`) when an object of the JSON text `payload` holds a key twice.

    `payload` has to be valid JSON. Objects nested too deep for the exact check raise `nesting-too-deep`.
    """
    skeleton = payload.translate(None, _DELETED)
    if skeleton in _verified:
        return
    _check_exactly(payload)
    if b"\\" not in payload and _has_unique_keys(skeleton):
        if len(_verified) >= _KEPT_MAX:
            _verified.clear()
        _verified.add(skeleton)


def _check_exactly(payload: bytes) -> None:
    def refuse(pairs: list[tuple[str, object]]) -> None:
        if len(pairs) != len({key for key, _value in pairs}):
            seen: set[str] = set()
            for key, _value in pairs:
                if key in seen:
                    raise MalformedError(f"the key {key[:64]!r} stands twice in one object", code=codes.DUPLICATE_KEY)
                seen.add(key)

    try:
        json.loads(payload, object_pairs_hook=refuse)
    except RecursionError:
        raise MalformedError("objects are nested too deep", code=codes.NESTING_TOO_DEEP) from None
    except ValueError as error:
        raise MalformedError(f"not JSON: {error}", code=codes.MALFORMED_JSON) from None


def _has_unique_keys(skeleton: bytes) -> bool:
    open_objects: list[set[bytes]] = []
    for token in _TOKEN.finditer(skeleton):
        text = token.group()
        if text == b"{":
            open_objects.append(set())
        elif text == b"}":
            if not open_objects:
                return False
            open_objects.pop()
        elif token.group(2) is not None:
            key = token.group(1)
            if not open_objects or key in open_objects[-1]:
                return False
            open_objects[-1].add(key)
    return not open_objects
