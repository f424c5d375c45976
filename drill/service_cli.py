"""`swap ...` commands that print one JSON object, many of them in a row.

The drill asks for hundreds of orders; a Python start each would take minutes of both cores. So one process imports the
command line once and forks for every command: each runs `swap` from its entry point, in a process and environment of its
own, and ends with its exit code, as from a shell.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from drill.processes import ROOT

_SECONDS = 60


class ToolFailed(Exception):
    """A command ended with another code than 0; the message is what it said."""


class Tools:
    """Thread-safe; commands run one after the other."""

    def __init__(self, environ: Mapping[str, str], log: Path) -> None:
        self._lock = threading.Lock()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "drill.service_cli"],
                env=dict(environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                start_new_session=True,
            )

    def run(self, *arguments: str) -> Any:
        """The JSON that `swap ARGUMENTS` printed, None where it printed nothing. Raises ToolFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(arguments).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise ToolFailed("the process that runs commands has ended")
        code, said, complained = json.loads(line)
        if code != 0:
            raise ToolFailed(f"swap {' '.join(arguments)} ended with {code}: {complained.strip()[-400:]}")
        return json.loads(said) if said else None

    def close(self) -> None:
        """It ends when nobody is left to ask."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Tools:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


def _serve() -> None:
    """Commands as JSON lists on stdin, one a line; [code, stdout, stderr] for each on stdout."""
    from sqlalchemy.orm import configure_mappers

    import swap.wiring  # noqa: F401 - imported once, before the forks
    from swap import cli

    configure_mappers()

    for line in sys.stdin:
        out, err = os.memfd_create("out"), os.memfd_create("err")
        child = os.fork()
        if child == 0:
            os.dup2(out, 1)
            os.dup2(err, 2)
            sys.argv = ["swap", *json.loads(line)]
            _become(cli.run)
        code = _waited(child)
        said, complained = _content(out), _content(err)
        sys.stderr.write(complained)
        sys.stderr.flush()
        sys.stdout.write(json.dumps([code, said, complained]) + "\n")
        sys.stdout.flush()


def _become(command: Callable[[], None]) -> NoReturn:
    """Run it as the whole life of this process. Its end is at once: what the parent has loaded need not be cleared away."""
    code = 70
    try:
        command()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _waited(child: int) -> int:
    timer = threading.Timer(_SECONDS, os.kill, args=(child, 9))
    timer.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        timer.cancel()


def _content(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


if __name__ == "__main__":
    _serve()
