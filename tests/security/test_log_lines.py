"""Foreign text ends no log line, controls no terminal and imitates no line of ours, in both formats."""

import io
import json
import logging

import pytest
import structlog

from service.telemetry import set_up_logging

NASTY = "a\nlevel=info event=forged\r\x1b[31mred\x1b[0m\x00\x7f\x9b31m\x85\u2028\u2029\u202e\udcff end"
SECRET = "the-secret-in-a-variable"


@pytest.fixture(params=["json", "console"])
def log(request: pytest.FixtureRequest) -> io.StringIO:
    structlog.reset_defaults()
    out = io.StringIO()
    set_up_logging("debug", request.param, out)
    return out


@pytest.fixture(autouse=True)
def _restore() -> object:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    structlog.reset_defaults()


def test_a_value_stays_on_its_line(log: io.StringIO) -> None:
    structlog.get_logger().info("task.created", reason=NASTY, more=[NASTY], **{"name": NASTY})
    (line,) = log.getvalue().splitlines()
    assert line.isprintable(), repr(line)
    assert "end" in line


@pytest.mark.parametrize("char", [*NASTY.replace("a", "").replace(" ", ""), "\t", "\\"], ids=ascii)
def test_no_value_does_more_once_it_is_read_from_json(char: str) -> None:
    structlog.reset_defaults()
    out = io.StringIO()
    set_up_logging("debug", "json", out)
    structlog.get_logger().info("task.created", reason=f"a{char}b", more={f"c{char}d": [f"e{char}f"]})
    read = json.loads(out.getvalue())
    assert read["reason"].isprintable()
    assert repr(read["more"]).isprintable() and all(key.isprintable() for key in read["more"])


def test_a_record_of_a_library_stays_on_its_line(log: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").error(
        "refused %s", NASTY.replace("\udcff", "")
    )  # which pytest's workers can't pass on
    (line,) = log.getvalue().splitlines()
    assert line.isprintable(), repr(line)


def test_an_exception_tells_no_variables_and_begins_no_line(log: io.StringIO) -> None:
    def fail(key: str) -> None:
        raise ValueError(NASTY)

    try:
        fail(SECRET)
    except ValueError:
        structlog.get_logger().exception("request.failed")
    text = log.getvalue()
    assert SECRET not in text
    assert "ValueError" in text
    lines = text.splitlines()
    assert all(line.isprintable() for line in lines), text
    assert [line for line in lines if "forged" in line and not line.startswith((" ", "{"))] == []
    if lines[0].startswith("{"):
        assert json.loads(text)["event"] == "request.failed"
