"""No secret in any log line, however it got there; every line is one JSON object."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from swap.infra import logs

SECRET = 'p@ss "wörd"/#1'
KNOWN = [SECRET, "sk_upstream_secret_1", "short"]


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    for name in ("rq", "rq.worker", "alembic", "urllib3", "werkzeug"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    logs.configure("INFO", KNOWN, part="test")
    written = io.StringIO()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    return lambda: [json.loads(line) for line in written.getvalue().splitlines()]


Lines = Callable[[], list[dict[str, Any]]]


class Holder:
    def __repr__(self) -> str:
        return f"Holder({SECRET})"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError(SECRET)


def test_what_ends_a_thread_is_a_log_line(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    try:
        logs.catch_threads()
        thread = threading.Thread(target=lambda: 1 / 0, name="worn")
        thread.start()
        thread.join()
    finally:
        logging.captureWarnings(False)
    (line,) = lines()
    assert (line["event"], line["level"], line["thread"]) == ("thread.broke", "error", "worn")
    assert "ZeroDivisionError" in line["exception"]


def test_logs_go_to_stderr_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", part="test")
    structlog.get_logger().info("here")
    written = capsys.readouterr()
    assert written.out == ""
    assert json.loads(written.err)["event"] == "here"


def deep(value: object, levels: int) -> object:
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"before {SECRET} after",
        {"a": {"b": [SECRET, (SECRET, {SECRET})]}},
        {SECRET: 1},
        {1: SECRET, (SECRET, 2): 3},
        ValueError(f"cannot use {SECRET}"),
        SECRET.encode(),
        Holder(),
        [Holder(), {"x": Holder()}],
        f"redis://:{SECRET}@host",
        "redis://:p%40ss%20%22w%C3%B6rd%22%2F%231@host/0",
        json.dumps({"body": SECRET}),
        repr({"body": SECRET}),
        deep(SECRET, 40),
        deep({"x": Holder()}, 20),
    ],
)
def test_a_known_secret_is_struck_out_of_every_kind_of_value(value: object, lines: Lines) -> None:
    structlog.get_logger().warning("something.happened", value=value, number=7)
    logging.getLogger("library").warning("%s", value)
    written = lines()
    assert [line["part"] for line in written] == ["test", "test"]
    assert written[0]["number"] == 7
    text = json.dumps(written, ensure_ascii=False)
    for spelling in ("wörd", "w\\u00f6rd", "w%C3%B6rd", "w\\xc3\\xb6rd"):
        assert spelling not in text, text


def test_a_secret_in_the_event_itself_and_in_its_arguments_is_struck_out(lines: Lines) -> None:
    structlog.get_logger().info(f"it is {SECRET}")
    structlog.get_logger().info("it is %s", SECRET)
    assert [line["event"] for line in lines()] == ["it is [redacted]"] * 2


def test_a_secret_in_an_exception_and_what_caused_it_is_struck_out(lines: Lines) -> None:
    try:
        try:
            raise ValueError(f"first {SECRET}")
        except ValueError as error:
            raise RuntimeError("then sk_upstream_secret_1") from error
    except RuntimeError as error:
        structlog.get_logger().exception("it.failed")
        structlog.get_logger().error("it.failed", exc_info=error)
        logging.getLogger("library").exception("it failed")
    written = lines()
    assert len(written) == 3
    for line in written:
        assert "RuntimeError: then [redacted]" in line["exception"]
        assert "ValueError: first [redacted]" in line["exception"]


def test_names_that_mean_a_secret_hide_their_value_whatever_it_is(lines: Lines) -> None:
    structlog.get_logger().info(
        "call",
        X_Signature="ab",
        headers={"Authorization": "Bearer ab", "X-API-Key": "k", "X-Timestamp": "1"},
        client_secret={"nested": "ab"},
    )
    (line,) = lines()
    assert line["X_Signature"] == line["client_secret"] == "[redacted]"
    assert line["headers"] == {"Authorization": "[redacted]", "X-API-Key": "[redacted]", "X-Timestamp": "1"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("made sws_0123456789abcdefXYZ-_ now", "made [redacted] now"),
        ("made whsec_0123456789abcdef+/= now", "made [redacted] now"),
        ("at postgresql+psycopg://swap:other-password@db/x failed", "at postgresql+psycopg://[redacted]@db/x failed"),
        ("at http://127.0.0.1:8090/a@b:c", "at http://127.0.0.1:8090/a@b:c"),
        ("key swk_0123456789abcdef0123", "key swk_0123456789abcdef0123"),
    ],
)
def test_secrets_met_later_are_known_by_their_form(text: str, shown: str, lines: Lines) -> None:
    logging.getLogger("library").warning(text)
    assert lines()[0]["event"] == shown


@pytest.mark.parametrize(("message", "argument"), [("%d", SECRET), ("%s", Broken())])
def test_a_line_that_cannot_be_written_is_counted_and_not_quoted(message: str, argument: object, lines: Lines) -> None:
    record = logging.LogRecord("library", logging.WARNING, "file.py", 7, message, (argument,), None)
    logging.getLogger().handlers[0].handle(record)
    assert lines() == [{"event": "logs.line_lost", "logger": "library", "line": 7, "level": "error"}]


def test_texts_too_short_to_be_secrets_are_left_alone(lines: Lines) -> None:
    structlog.get_logger().info("a shortened story")
    assert lines()[0]["event"] == "a shortened story"


def test_a_value_that_holds_itself_does_not_stop_the_log(lines: Lines) -> None:
    circle: list[object] = [SECRET]
    circle.append(circle)
    structlog.get_logger().warning("round", circle=circle)
    (line,) = lines()
    assert "wörd" not in json.dumps(line, ensure_ascii=False)


def test_a_setting_nobody_knows_is_named_in_a_warning(lines: Lines) -> None:
    structlog.get_logger().warning("settings.unknown", name="SWAP_TYPO")
    (line,) = lines()
    assert (line["event"], line["name"], line["level"]) == ("settings.unknown", "SWAP_TYPO", "warning")


@pytest.mark.parametrize(
    ("level", "expected"),
    [("DEBUG", "DEBUG"), ("INFO", "WARNING"), ("WARNING", "WARNING"), ("ERROR", "ERROR")],
)
def test_chatty_libraries_are_never_louder_than_asked(level: str, expected: str) -> None:
    logs.configure(level, part="test")
    assert logging.getLevelName(logging.getLogger("urllib3").getEffectiveLevel()) == expected


def test_a_tracking_token_is_known_by_its_form(lines: Lines) -> None:
    mac = "A_b-" * 10 + "xyz"
    token = f"trk_ord_01a1fc5aa16b704d8d87707b6e6b5eb9.0.1795228975.{mac}"
    structlog.get_logger().info("said", text=f"Bearer {token} x", url=f"https://x.test/?t={token}&a=1")
    (line,) = lines()
    assert line["text"] == "Bearer [redacted] x"
    assert mac not in json.dumps(line)
