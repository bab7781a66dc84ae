"""Is every duplicate key found, whatever was remembered before?"""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from godwit.contract import codes, duplicate_keys
from godwit.contract.duplicate_keys import check_duplicate_keys
from godwit.contract.errors import MalformedError

# Few letters, so that keys collide, both as they are and in the skeleton: deleted, kept and troublesome ones.
TEXT = st.text('a1z:{}"\\,[ \u00e9', max_size=4)
LEAF = st.one_of(st.integers(-20, 2000), st.floats(0, 9), TEXT, st.booleans(), st.none())


class Pairs(list[tuple[str, Any]]):
    """An object that may hold a key twice."""


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(TEXT, inner), max_size=4).map(Pairs)


TREE = objects(st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=8))


def write(tree: Any, *, is_ascii: bool) -> str:
    if isinstance(tree, Pairs):
        pairs = (f"{json.dumps(key, ensure_ascii=is_ascii)}: {write(value, is_ascii=is_ascii)}" for key, value in tree)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(write(each, is_ascii=is_ascii) for each in tree) + "]"
    return json.dumps(tree, ensure_ascii=is_ascii)


def has_duplicate(tree: Any) -> bool:
    if isinstance(tree, Pairs):
        keys = [key for key, _value in tree]
        return len(set(keys)) < len(keys) or any(has_duplicate(value) for _key, value in tree)
    return isinstance(tree, list) and any(map(has_duplicate, tree))


def is_refused(payload: bytes) -> bool:
    code = ""
    try:
        check_duplicate_keys(payload)
    except MalformedError as error:
        code = error.code
    assert code in {"", codes.DUPLICATE_KEY}
    return bool(code)


@settings(max_examples=600)
@given(st.lists(st.tuples(TREE, st.booleans()), min_size=1, max_size=4))
@example([(Pairs([("a", 1), ("1", 2)]), True), (Pairs([("a", 1), ("a", 2)]), True)])
def test_refuses_exactly_what_holds_a_key_twice(trees: list[tuple[Any, bool]]) -> None:
    for tree, is_ascii in trees:  # one after the other: what is remembered of one meets the next
        payload = write(tree, is_ascii=is_ascii).encode()
        assert is_refused(payload) == has_duplicate(tree), payload


@settings(max_examples=600)
@given(TREE, st.data())
def test_whatever_has_a_proved_skeleton_holds_no_duplicate(tree: Any, data: st.DataObject) -> None:
    """The soundness of the cache: put deletable characters anywhere into a proved payload; the skeleton stays."""
    payload = write(tree, is_ascii=False).encode()
    skeleton = payload.translate(None, duplicate_keys._DELETED)
    if is_refused(payload) or not duplicate_keys._known.get(skeleton):
        return
    text = payload.decode()
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from("a1f-")) + text[at:]
    found: list[bool] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        found.append(len({key for key, _value in pairs}) < len(pairs))

    try:
        json.loads(text, object_pairs_hook=look)
    except ValueError:
        return  # no JSON any more
    assert text.encode().translate(None, duplicate_keys._DELETED) == skeleton
    assert not any(found), text


def test_keys_that_differ_in_digits_only_are_no_duplicates_and_duplicates_among_them_are_found() -> None:
    check_duplicate_keys(b'{"t1": 1, "t2": 2}')
    check_duplicate_keys(b'{"t3": 1, "t4": 2}')
    assert is_refused(b'{"t5": 1, "t5": 2}')
    check_duplicate_keys(b'{"x": {"t1": 1, "t2": 1}, "y": {"t1": 1, "t2": 1}}')
    check_duplicate_keys(b'{"x": {"t3": 1, "t4": 1}, "y": {"t3": 1, "t4": 1}}')
    assert is_refused(b'{"x": {"t3": 1, "t4": 1}, "y": {"t4": 1, "t4": 1}}')


def test_escaped_keys() -> None:
    check_duplicate_keys(rb'{"\u0061": 1, "z": 2}')
    assert is_refused(rb'{"\u007a": 1, "z": 2}')
    assert is_refused(rb'{"\"": 1, "\u0022": 2}')


def test_depth_is_checked_for_shapes_seen_before_too() -> None:
    for value in (b"1", b"2"):
        with pytest.raises(MalformedError) as caught:
            check_duplicate_keys(b'{"q":' * 40 + value + b"}" * 40)
        assert caught.value.code == codes.NESTING_TOO_DEEP


def test_memory_is_bounded() -> None:
    filler = "z" * 40_000
    for number in range(600):
        check_duplicate_keys(f'{{"k{chr(0x4E00 + number)}": "{filler}"}}'.encode())
    assert sum(map(len, duplicate_keys._known)) < duplicate_keys._KEPT_BYTES_MAX + 100_000
