from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost_server.config.expand import MAX_NESTING, MAX_SECRET_BYTES, ExpandError, expand

VARIABLES = {"SET": "value", "EMPTY": "", "DOLLAR": "${SET} $$", "PORT": "3000"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("${SET}", "value"),
        ("a ${SET} b", "a value b"),
        ("${SET}${PORT}", "value3000"),
        ("${EMPTY}", ""),
        ("${UNSET:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${SET:-default}", "value"),
        ("${UNSET-default}", "default"),
        ("${EMPTY-default}", ""),
        ("${UNSET:-}", ""),
        ("${SET:?message}", "value"),
        ("$$", "$"),
        ("$${SET}", "${SET}"),
        ("$$$$", "$$"),
        ("$5 $ $SET", "$5 $ $SET"),
        ("${UNSET:-${OTHER:-${SET}}}", "value"),
        ("${UNSET:-a${SET}b$$}", "avalueb$"),
        ("${UNSET:-http://x:1/?a=b}", "http://x:1/?a=b"),
        ("${SET:-${UNSET}}", "value"),  # a default that is not used need not be there
        ("${SET:-${file:/nope}}", "value"),
        ("${SET:-${UNSET:?never}}", "value"),
        ("${DOLLAR}", "${SET} $$"),  # what a variable holds is not expanded again
        ("}", "}"),
    ],
)
def test_expressions(tmp_path, template, text):
    assert expand(template, VARIABLES, tmp_path).text == text


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("${UNSET}", "the variable UNSET is not set"),
        ("a${UNSET}b", "the variable UNSET is not set"),
        ("${UNSET:-${OTHER}}", "the variable OTHER is not set"),
        ("${UNSET:?give one}", "UNSET is not set or empty: give one"),
        ("${EMPTY:?give one}", "EMPTY is not set or empty: give one"),
        ("${UNSET:?}", "UNSET is not set or empty"),
        ("${UNSET:?see ${SET}}", "see value"),
        ("${SET", "is not understood"),
        ("${SET:-x", "has no }"),
        ("${", "no name"),
        ("${}", "no name"),
        ("${1}", "no name"),
        ("${SET:+x}", "is not understood"),
        ("${SET?x}", "is not understood"),
        ("${SET%x}", "is not understood"),
        ("${ SET}", "no name"),
        ("${file:", "has no }"),
        ("${file:nope}", "cannot be read: no such file"),
        ("${file:${SET:-nope}}", "no such file or directory"),
        ("${file:${UNSET:-nope}}", "no such file or directory; set UNSET to name another file"),
        ("${UNSET:-}${file:nope}", "no such file or directory"),
        ("${file:}", "cannot be read"),
        ("${file:a\0b}", "cannot be read"),
        ("${A:-" * (MAX_NESTING + 1), "nest deeper"),
        ("${A:-" * 100_000, "nest deeper"),
    ],
)
def test_what_cannot_be_expanded_is_said(tmp_path, template, says):
    with pytest.raises(ExpandError) as caught:
        expand(template, VARIABLES, tmp_path)
    assert says in str(caught.value)
    assert ("to name another" in str(caught.value)) == ("to name another" in says)


def test_files(tmp_path):
    (tmp_path / "secret").write_text("s3cret ${SET}\n\n")
    (tmp_path / "crlf").write_bytes(b"x\r\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    result = expand("${file:secret}", {}, tmp_path)
    assert (result.text, result.secret, result.whole) == ("s3cret ${SET}\n", True, True)
    assert expand(f"a ${{file:{tmp_path}/crlf}}", {}, tmp_path).text == "a x"
    assert expand("${file:${NAME:-crlf}}", {}, tmp_path).text == "x"
    for name, says in (("binary", "not UTF-8"), ("long", "longer than"), (".", "directory")):
        with pytest.raises(ExpandError, match=says):
            expand(f"${{file:{name}}}", {}, tmp_path)


@pytest.mark.parametrize(
    ("template", "held", "whole"),
    [
        ("${SET}", True, True),
        ("${U:-${SET}}", True, True),
        ("${SET} ", True, False),
        (" ${SET}", True, False),
        ("${SET}${SET}", True, False),
        ("$$", False, False),
        ("", False, False),
    ],
)
def test_only_a_lone_expression_is_whole(tmp_path, template, held, whole):
    result = expand(template, VARIABLES, tmp_path)
    assert (result.held, result.whole) == (held, whole)


@given(st.text())
def test_text_with_every_dollar_doubled_is_itself(text):
    assert expand(text.replace("$", "$$"), {}, None).text == text


@given(st.text())
def test_what_a_variable_holds_comes_out_as_it_is(value):
    assert expand("${A}", {"A": value}, None).text == value
    assert expand("<${A-x}>", {"A": value}, None).text == f"<{value}>"


@given(st.text(alphabet="${}:-?AB file/.", max_size=40))
def test_any_template_is_expanded_or_refused(tmp_path_factory, template):
    with suppress(ExpandError):
        expand(template, {"A": "x"}, tmp_path_factory.getbasetemp())
