"""JSON logs on stderr, with every secret struck out wherever it turns up: those known when the process starts by their
text, those met later (secrets of API keys and webhook endpoints, tracking tokens, passwords in URLs) by their form, others
by their name."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, TextIO
from urllib.parse import quote, unquote

import structlog
from structlog.types import Processor

_STRUCK = "[redacted]"
_SECRET_NAMES = ("secret", "signature", "authorization", "password", "token", "x-api-key")
_SECRET_FORMS = re.compile(r"\b(?:sws|whsec|trk)_[A-Za-z0-9+/=_.-]{16,}|(?<=://)[^\s/@]*:[^\s/@]*(?=@)")
# Shorter texts would be struck out of words that merely contain them.
_SHORTEST = 6
_MAX_DEPTH = 12


def configure(level: str, secrets: Iterable[str] = (), *, part: str) -> None:
    """Send everything, our own and the libraries', as one JSON object per line to stderr.

    `secrets`: texts of 6 characters or more that must never be seen; `part`: which process logs (api, worker, ...).
    """

    def name_part(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("part", part)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        name_part,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _strike(secrets),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for chatty in ("rq", "rq.worker", "alembic", "urllib3", "werkzeug"):
        logging.getLogger(chatty).setLevel("WARNING" if level == "INFO" else level)


def catch_threads() -> None:
    """Log what ends a thread, instead of Python's traceback on stderr; and the warnings of libraries."""

    def broke(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
            name = arguments.thread.name if arguments.thread else None
            structlog.get_logger().error("thread.broke", thread=name, exc_info=arguments.exc_value)

    threading.excepthook = broke
    logging.captureWarnings(True)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """The library's own would print the record's arguments as they are."""
        lost = {"event": "logs.line_lost", "logger": record.name, "line": record.lineno, "level": "error"}
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(json.dumps(lost) + self.terminator)


def _strike(secrets: Iterable[str]) -> Processor:
    spellings = {spelling for secret in secrets for spelling in _spellings(secret) if len(spelling) >= _SHORTEST}
    # The longest first: one secret may be the beginning of another.
    texts = sorted(spellings, key=len, reverse=True)

    def clean(value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            return {
                clean(str(name)): _STRUCK if _names_secret(name) else clean(content, depth + 1)
                for name, content in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset) and depth < _MAX_DEPTH:
            return [clean(item, depth + 1) for item in value]
        # Everything else is written as text here, not by the renderer behind us, which would write it as it is.
        text = value if isinstance(value, str) else _shown(value)
        for secret in texts:
            text = text.replace(secret, _STRUCK)
        return _SECRET_FORMS.sub(_STRUCK, text)

    def processor(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        cleaned: dict[str, Any] = clean(event)
        return cleaned

    return processor


def _spellings(secret: str) -> set[str]:
    """The secret as itself, as it stands in a URL (or behind one), and inside quotes."""
    plain = {secret, unquote(secret)}
    return (
        plain
        | {quote(s, safe="") for s in plain}
        | {repr(s)[1:-1] for s in plain}
        | {json.dumps(s)[1:-1] for s in plain}
    )


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # a log line must not fail for what it is about
        return f"<{type(value).__name__}>"


def _names_secret(name: object) -> bool:
    return isinstance(name, str) and any(word in name.lower() for word in _SECRET_NAMES)
