"""The parts as processes: each in a group of its own, its output in a file, gone when the drill is.

Parts must be started from the main thread: the kernel tells a child of its parent's death when the *thread* that forked
it ends, so a part restarted from a thread of the moment would be stopped with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SWAP = (sys.executable, "-m", "swap.cli")
DRAIN_SECONDS = 3.0

# Sets PR_SET_PDEATHSIG and becomes the command. Not preexec_fn: that runs Python between fork and exec in a process with
# many threads, any of which may hold a lock that the child then waits for.
_LAUNCH = (
    "import ctypes, os, sys\n"
    "if sys.platform == 'linux':\n    ctypes.CDLL(None).prctl(1, int(sys.argv[1]))\n"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


class PartFailed(Exception):
    """A part did not come up. The message says which, with the last line it wrote."""


@dataclass
class Part:
    """`orphaned_by`: the signal it gets when the drill itself is killed. One that may be paused at that moment needs
    SIGKILL; the API has a child to take with it, and so must hear of its end."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    log: Path
    orphaned_by: int = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    died: list[str] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                [sys.executable, "-S", "-E", "-c", _LAUNCH, str(int(self.orphaned_by)), *self.command],
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        """To the whole group: the API serves in a child of its own."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1][:300] if lines else "nothing was written"


class Parts:
    """All parts of one drill."""

    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self.all: dict[str, Part] = {}
        self._wrong: list[str] = []

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str], *, pausable: bool = False) -> Part:
        last = signal.SIGKILL if pausable else signal.SIGTERM
        part = self.all[name] = Part(name, tuple(command), environ, self.logs / f"{name}.log", last)
        part.start()
        return part

    def start_swap(self, name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Part:
        return self.start(name, [*SWAP, *arguments], environ)

    def wait_for(self, name: str, ready: Callable[[], bool], seconds: float = 30.0) -> None:
        """Raises PartFailed when the part ended or is not ready in time."""
        part, until = self.all[name], time.monotonic() + seconds
        while not ready():
            if not part.alive:
                raise PartFailed(f"{name} ended while starting: {part.last_line()}")
            if time.monotonic() > until:
                raise PartFailed(f"{name} was not ready within {seconds:.0f} s: {part.last_line()}")
            time.sleep(0.05)

    def restart_dead(self, meant: frozenset[str] = frozenset()) -> None:
        """Start again what ended without having been killed, as an init system would, and note it. `meant`: parts that
        are down on purpose."""
        for part in self.all.values():
            if part.name not in meant and part.process is not None and not part.alive:
                part.died.append(f"{part.name} ended by itself with {part.process.returncode}: {part.last_line()}")
                if part.starts < 20:
                    part.start()

    def stop_first(self, names: Sequence[str]) -> None:
        """SIGTERM to these alone; what goes wrong is told by `stop`."""
        self._wrong += _terminate([self.all[name] for name in names])

    def stop(self, last: Sequence[str] = ("sandbox", "redis", "database")) -> list[str]:
        """SIGTERM to all, `last` after the others; what does not follow in time is killed. Returns what went wrong."""
        wrong = self._wrong
        for part in self.all.values():
            part.signal(signal.SIGCONT)
        first = [part for part in self.all.values() if part.name not in last]
        for group in (first, *([self.all[name]] for name in last if name in self.all)):
            wrong += _terminate(group)
        return wrong

    def kill_all(self) -> None:
        for part in self.all.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                part.kill()


def _terminate(group: Sequence[Part]) -> list[str]:
    wrong: list[str] = []
    running = [part for part in group if part.alive]
    for part in running:
        assert part.process is not None
        part.process.terminate()
    until = time.monotonic() + DRAIN_SECONDS + 2
    for part in running:
        assert part.process is not None
        try:
            code = part.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            wrong.append(f"{part.name} still ran {DRAIN_SECONDS + 2:.0f} s after SIGTERM")
        else:
            if code != 0:
                wrong.append(f"{part.name} ended with {code} on SIGTERM: {part.last_line()}")
        part.kill()
    return wrong


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
