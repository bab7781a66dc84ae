"""Topic names, filters, and the tree that finds the filters of a name."""

from hypothesis import given
from hypothesis import strategies as st

from godwit.mqtt.topic_tree import TopicTree
from godwit.mqtt.topics import is_topic_filter, is_topic_name, matches

LEVELS = st.sampled_from(["a", "b", "", "$x"])
NAMES = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(is_topic_name)
FILTERS = st.tuples(st.lists(st.sampled_from(["a", "b", "", "$x", "+"]), max_size=4), st.sampled_from([[], ["#"]]))
FILTERS = FILTERS.map(lambda parts: "/".join(parts[0] + parts[1])).filter(is_topic_filter)


def test_names():
    assert all(is_topic_name(each) for each in ("a", "/", "a//b", " ", "$SYS/x", "温度"))
    assert not any(is_topic_name(each) for each in ("", "a/+", "#", "a\0"))


def test_filters():
    good = "a", "#", "+", "/", "a/#", "+/+/#", "a/+/b", "$share/g/a/#", "$share/g//", "$shared", "$SYS/#"
    bad = (
        "",
        "a#",
        "#/a",
        "a/#/b",
        "a+",
        "+a/b",
        "a\0",
        "$share/g",
        "$share//a",
        "$share/+/a",
        "$share/g/",
        "$share/g/a#",
    )
    assert [each for each in good if not is_topic_filter(each)] == []
    assert [each for each in bad if is_topic_filter(each)] == []


def test_matching_by_the_examples_of_the_standard():
    # 4.7.1.2, 4.7.1.3, 4.7.2
    yes = [
        ("sport/tennis/player1/#", "sport/tennis/player1"), ("sport/tennis/player1/#", "sport/tennis/player1/score/x"),
        ("sport/#", "sport"), ("#", "a/b"), ("sport/tennis/+", "sport/tennis/player1"), ("sport/+", "sport/"),
        ("+/+", "/finance"), ("/+", "/finance"), ("$SYS/#", "$SYS/a"), ("$SYS/monitor/+", "$SYS/monitor/Clients"),
    ]  # fmt: skip
    no = [
        ("sport/tennis/+", "sport/tennis/player1/ranking"), ("sport/+", "sport"), ("+", "/finance"), ("#", "$SYS/a"),
        ("+/monitor/Clients", "$SYS/monitor/Clients"), ("a", "A"), ("a/", "a"),
    ]  # fmt: skip
    assert [each for each in yes if not matches(*each)] == []
    assert [each for each in no if matches(*each)] == []


@given(st.lists(st.tuples(FILTERS, st.integers(0, 3), st.booleans()), max_size=40), st.lists(NAMES, max_size=10))
def test_the_tree_finds_what_trying_each_filter_finds(changes, names):
    tree, held = TopicTree(), {}
    for topic_filter, key, is_added in changes:
        if is_added:
            assert tree.add(topic_filter, key, topic_filter) == ((topic_filter, key) not in held)
            held[topic_filter, key] = topic_filter
        else:
            assert tree.remove(topic_filter, key) == (held.pop((topic_filter, key), None) is not None)
    assert len(tree) == len(held)
    for name in names:
        expected = sorted((key, each) for each, key in held if matches(each, name))
        assert sorted(tree.match(name)) == expected


def test_nothing_is_left_when_all_is_removed():
    tree = TopicTree()
    for topic_filter in ("a/b/c", "a/+/#", "a"):
        tree.add(topic_filter, 1, None)
    for topic_filter in ("a", "a/b/c", "a/+/#"):
        tree.remove(topic_filter, 1)
    assert not tree._root.children


def test_a_name_of_ten_thousand_levels():
    tree, deep = TopicTree(), "/".join("a" * 10_000)
    for topic_filter in (deep, "#", "a/#", "+/+/#", "b"):
        tree.add(topic_filter, topic_filter, None)
    assert {key for key, _ in tree.match(deep)} == {deep, "#", "a/#", "+/+/#"}
    assert tree.remove(deep, deep)
    assert matches("+/#", deep)
