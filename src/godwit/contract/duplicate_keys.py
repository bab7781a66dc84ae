"""Refuses JSON objects with the same key twice, at nearly no cost (RFC 8259, 4: such objects are unpredictable).

A device sends the same shape all its life; only digits change. So a payload is reduced to its *skeleton*, all digits,
signs, dots and hexadecimal letters deleted, and what was proved of a skeleton is remembered. The proof: neither quotes
nor braces nor backslashes are deleted, so without backslashes the skeleton has the payload's objects and keys, each key
with some of its characters deleted. Keys that differ after the deletion differed before. So where the keys of each
object of the skeleton are unique, no payload with that skeleton holds a duplicate. Brackets are all there too, so the
depth of nesting is checked once for all.

Keys like `t1` and `t2` are one in the skeleton. It is remembered as open, and its payloads are looked at each time.
"""

import json
import re
from typing import Any, Final

from godwit.contract import codes
from godwit.contract.errors import MalformedError
from godwit.contract.limits import NESTING_MAX

_DELETED: Final = b"0123456789+-.abcdefABCDEF"
_TOKEN: Final = re.compile(rb'"([^"]*)"(\s*:)?|[{}]')
_STRING: Final = re.compile(rb'"([^"]*)"(\s*:)?')
_KEPT_BYTES_MAX: Final = 8_388_608
_EACH_BYTES: Final = 128
"""What a remembered skeleton takes beside its bytes."""


class _Skeletons:
    """What is known of skeletons, in bounded memory: True, its keys are proved unique; False, that is open."""

    def __init__(self) -> None:
        self.known: dict[bytes, bool] = {}
        self.kept_bytes = 0

    def remember(self, skeleton: bytes, *, is_proved: bool) -> None:
        """Keep what was found; forget all when the memory is full, since what is still sent comes back at once."""
        if self.kept_bytes > _KEPT_BYTES_MAX:
            self.known.clear()
            self.kept_bytes = 0
        self.known[skeleton] = is_proved
        self.kept_bytes += len(skeleton) + _EACH_BYTES


_skeletons: Final = _Skeletons()
_known: Final = _skeletons.known


def check_duplicate_keys(payload: bytes) -> None:
    """Raise MalformedError when an object of the JSON text `payload` holds a key twice, or it is nested too deep.

    `payload` has to be valid JSON. The codes are `duplicate-key` and `nesting-too-deep`.
    """
    skeleton = payload.translate(None, _DELETED)
    is_proved = _known.get(skeleton)
    if is_proved or (is_proved is not None and _has_no_key_twice(payload)):
        return
    _check_exactly(payload)
    if is_proved is None and b"\\" not in skeleton:
        _skeletons.remember(skeleton, is_proved=_has_unique_keys(skeleton))


def _has_no_key_twice(payload: bytes) -> bool:
    """Tell whether no key stands twice in the whole payload, which must hold no backslash. False proves nothing."""
    keys = [text for text, colon in _STRING.findall(payload) if colon]
    return len(set(keys)) == len(keys)


def _check_exactly(payload: bytes) -> None:
    def refuse(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(pairs) != len(found):
            seen: set[str] = set()
            for key, _value in pairs:
                if key in seen:
                    raise MalformedError(f"the key {key[:64]!r} stands twice in one object", code=codes.DUPLICATE_KEY)
                seen.add(key)
        return found

    try:
        tree = json.loads(payload, object_pairs_hook=refuse)
    except RecursionError:
        raise MalformedError("objects are nested too deep", code=codes.NESTING_TOO_DEEP) from None
    except ValueError as error:
        raise MalformedError(f"not JSON: {error}"[:200], code=codes.MALFORMED_JSON) from None
    check_depth(tree)


def check_depth(tree: object) -> None:
    """Raise MalformedError (`nesting-too-deep`) for trees deeper than the limit. Iterative."""
    level: list[object] = [tree]
    for _depth in range(NESTING_MAX):
        inner: list[object] = []
        for each in level:
            if type(each) is dict:
                inner.extend(each.values())
            elif type(each) is list:
                inner.extend(each)
        if not inner:
            return
        level = inner
    raise MalformedError(f"nested deeper than {NESTING_MAX} levels", code=codes.NESTING_TOO_DEEP)


def _has_unique_keys(skeleton: bytes) -> bool:
    open_objects: list[set[bytes]] = []
    for token in _TOKEN.finditer(skeleton):
        text = token.group()
        if text == b"{":
            open_objects.append(set())
        elif text == b"}":
            open_objects.pop()
        elif token.group(2) is not None:
            key = token.group(1)
            if key in open_objects[-1]:
                return False
            open_objects[-1].add(key)
    return True
