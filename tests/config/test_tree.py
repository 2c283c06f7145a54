from hypothesis import given
from hypothesis import strategies as st

from devhost_server.config.problems import Origin
from devhost_server.config.tree import Node, dotted, find, leaves, merge, plain, with_value, without
from tests.config.support import node


def tree_of(value, place):
    at = Origin(place)
    if isinstance(value, dict):
        return Node({key: tree_of(child, place) for key, child in value.items()}, at, at)
    if isinstance(value, list):
        return Node(tuple(tree_of(child, place) for child in value), at, at)
    return Node(value, at, at)


KEYS = st.sampled_from("abc")
SCALARS = st.none() | st.integers() | st.text(max_size=3) | st.booleans()
MAPPINGS = st.recursive(
    st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=2), max_size=3),
    lambda inner: st.dictionaries(KEYS, SCALARS | inner, max_size=3),
    max_leaves=12,
)


def test_mappings_merge_and_everything_else_replaces():
    lower = node("{a: {x: 1, y: [1, 2]}, b: 1, c: {d: 1}}")
    upper = node("{a: {y: [3], z: 4}, b: {e: 2}, c: null}")
    assert plain(merge(lower, upper)) == {"a": {"x": 1, "y": [3], "z": 4}, "b": {"e": 2}, "c": None}


def test_a_layer_can_add_to_a_route_written_short():
    merged = merge(node("{routes: {web: 3000}}"), node("{routes: {web: {owner: me}}}"))
    assert plain(merged) == {"routes": {"web": {"to": 3000, "owner": "me"}}}
    assert plain(merge(merged, node("{routes: {web: 4000}}"))) == {"routes": {"web": 4000}}
    assert plain(merge(node("{routes: {web: null}}"), node("{routes: {web: {to: 1}}}"))) == {
        "routes": {"web": {"to": 1}}
    }


@given(MAPPINGS, MAPPINGS)
def test_what_the_upper_layer_says_is_what_counts(lower, upper):
    merged = merge(tree_of(lower, "lower"), tree_of(upper, "upper"))
    for path, leaf in leaves(tree_of(upper, "upper")):
        found, at = find(merged, path)
        if leaf.value == {}:
            continue  # an empty mapping adds nothing
        assert at == path
        assert plain(found) == plain(leaf)
        assert found.at.place == "upper"


@given(MAPPINGS, MAPPINGS)
def test_what_the_upper_layer_does_not_touch_stays(lower, upper):
    merged = plain(merge(tree_of(lower, "lower"), tree_of(upper, "upper")))
    assert {key: value for key, value in merged.items() if key not in upper} == {
        key: value for key, value in lower.items() if key not in upper
    }


@given(MAPPINGS)
def test_nothing_above_or_below_changes_nothing(value):
    tree, nothing = tree_of(value, "it"), tree_of({}, "nothing")
    assert plain(merge(tree, nothing)) == plain(merge(nothing, tree)) == plain(merge(tree, tree)) == value


def test_paths_lead_as_far_as_they_can():
    tree = node("a: [{b: 1}]")
    assert find(tree, ("a", 0, "b"))[1] == ("a", 0, "b")
    assert find(tree, ("a", 0, "c", "d"))[1] == ("a", 0)
    assert find(tree, ("a", 7))[1] == ("a",)
    assert dotted(("a", 0, "b")) == "a.0.b"


def test_nodes_are_replaced_and_removed():
    tree = node("a: [{b: 1, c: 2}, 3]")
    two = tree_of(2, "new")
    assert plain(with_value(tree, ("a", 0, "b"), two)) == {"a": [{"b": 2, "c": 2}, 3]}
    assert plain(with_value(tree, ("a", 0), None)) == {"a": [3]}
    assert plain(with_value(tree, ("a", 0, "b"), None)) == {"a": [{"c": 2}, 3]}
    assert plain(with_value(tree, ("nope",), two)) == plain(tree)
    assert plain(tree) == {"a": [{"b": 1, "c": 2}, 3]}


def test_several_places_are_left_out_at_once():
    tree = node("a: [{b: 1, c: 2}, 3]\nd: {e: 4, f: {}}\ng: 5")
    assert plain(without(tree, [("a", 0, "b"), ("a", 1), ("d", "e"), ("g",), ("nope",), ("g", "x")])) == {
        "a": [{"c": 2}],
        "d": {"f": {}},
    }
    assert plain(without(tree, [("a",), ("d",), ("g",)])) == {}
    assert plain(without(tree, [])) == plain(tree)
