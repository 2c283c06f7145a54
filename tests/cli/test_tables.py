"""Tables leave out empty columns, and fit into a width where that is possible."""

from devhost_server.cli.tables import table

HEAD = ("name", "owner", "targets")


def lines(*arguments, **options):
    first, *rest = table(*arguments, **options).split("\n")
    return [first.removeprefix("\x1b[1m").removesuffix("\x1b[0m"), *rest]


def test_columns_that_would_be_empty_are_left_out():
    assert lines(HEAD, [("a", None, ["x"]), ("bb", "", [])]) == ["NAME  TARGETS", "a     x", "bb"]


def test_a_table_without_rows_is_its_head():
    assert lines(HEAD, []) == ["NAME  OWNER  TARGETS"]


def test_what_could_steer_a_terminal_is_escaped():
    assert lines(("name",), [("a\x1b[2J",)])[1] == r"a\x1b[2J"


def test_items_stand_below_one_another_where_there_is_no_room_beside():
    rows = [("a", "me", ["xxxxxxxx", "yyyyyyyy"])]
    assert lines(HEAD, rows, width=40)[1:] == ["a     me     xxxxxxxx, yyyyyyyy"]
    assert lines(HEAD, rows, width=25)[1:] == ["a     me     xxxxxxxx", "             yyyyyyyy"]


def test_columns_go_below_their_row_where_there_is_still_no_room():
    rows = [("a", "me", ["xxxxxxxx", "yyyyyyyy"]), ("b", None, [])]
    assert lines(HEAD, rows, width=16, aside=("owner",)) == [
        "NAME  TARGETS",
        "a     xxxxxxxx",
        "      yyyyyyyy",
        "    owner: me",
        "b",
    ]
