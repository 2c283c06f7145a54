"""The log of events: what strangers wrote arrives visible, whatever it is."""

import json
import logging

import pytest

from devhost_server.observe.logs import _ConsoleFormatter, _JsonFormatter

HOSTILE = "a\x1b[2J\x85\x9b\u202eb\u2028c\u2066d\udcffe\n"


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("devhost_server.x", logging.ERROR, "", 0, "%s", (message,), None)


@pytest.mark.parametrize("message", [HOSTILE, HOSTILE.replace("\udcff", "")])
def test_json_lines_show_nothing_invisible(message: str) -> None:
    line = _JsonFormatter().format(record(message))
    assert line.isprintable()
    said = json.loads(line)["message"]
    assert said == message or "\\xff" in said


def test_console_lines_show_nothing_invisible() -> None:
    text = _ConsoleFormatter().format(record(HOSTILE))
    assert all(character == "\n" or character.isprintable() for character in text)
    assert text.endswith("a\\x1b[2J\\x85\\x9b\\u202eb\\u2028c\\u2066d\\xffe\n")
