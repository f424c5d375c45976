"""What every command needs: the settings, the parts of the service, and where its answer goes."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, NoReturn

import click
import orjson

from swap.errors import ConfigurationError
from swap.infra import logs
from swap.settings import Settings


def read_settings(environ: dict[str, str] | None = None) -> Settings:
    try:
        return Settings.from_env(environ)
    except ConfigurationError as error:
        fail("\n".join(error.mistakes))


def open_service() -> Any:
    """The parts a tool needs. Tools work on the database alone; Redis need not run."""
    from swap.wiring import build, complete, known_secrets

    settings = read_settings()
    try:
        settings = complete(settings)
    except ConfigurationError:
        # Nothing answers there.
        settings = complete(replace(settings, redis_url="redis://127.0.0.1:1"))
    logs.configure("WARNING", known_secrets(settings), part="cli")
    return build(settings)


def show(content: dict[str, Any], as_json: bool) -> None:
    """The command's answer: one line of JSON, or the same indented."""
    options = orjson.OPT_APPEND_NEWLINE | (0 if as_json else orjson.OPT_INDENT_2)
    sys.stdout.buffer.write(orjson.dumps(content, option=options))
    sys.stdout.flush()


def fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)
