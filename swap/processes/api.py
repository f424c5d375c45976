"""`swap api`: the JSON API behind granian, and how it ends.

SIGTERM (or Ctrl-C) drains first: `/readyz` answers 503 "draining", new orders 503 with the same request to be sent again,
everything else goes on. Once no create is open, granian stops. Shortly before SWAP_DRAIN_SECONDS are over the upstream is
hung up on: a create that is still open comes back without an answer there, its order is in doubt at once, and its
caller is answered so. A second signal does not wait.

granian serves in a child process. Its own handler of SIGTERM in there closes the door before anything else, so the
draining is asked for by SIGUSR1, and the child tells its parent when it is done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from granian import Granian
from granian.http import HTTP1Settings

from swap.infra import descriptors
from swap.ops.heartbeats import Pulse
from swap.settings import Settings
from swap.web import cors, create_app
from swap.web.door import Door
from swap.wiring import Service, start

log = structlog.get_logger()

_DRAIN = signal.SIGUSR1
# A connection that sends nothing, or no end of its headers, is closed after this; so is one kept open between requests.
_HEADER_SECONDS = 5
_HEADER_BYTES = 32 * 1024
_BACKLOG = 4096
# For creates that were hung up on: to write down what became of them, and to answer.
_LAST_SECONDS = 2.0


def serve(settings: Settings) -> None:
    """Serve on SWAP_API_BIND until a signal ends it. `settings`: complete; the serving process reads its own."""
    host, _, port = settings.api_bind.rpartition(":")
    # The parent ignores it, and a child inherits that until it listens.
    signal.signal(_DRAIN, signal.SIG_IGN)
    _Server(
        "swap.processes.api:application",
        factory=True,
        address=host.strip("[]"),
        port=int(port),
        interface="rsgi",
        # HTTP/2 without TLS lets one connection hold hundreds of requests, and headers of any size.
        http="1",
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_SECONDS * 1000, max_buffer_size=_HEADER_BYTES),
        websockets=False,
        workers=1,
        backlog=_BACKLOG,
        # Open connections; the rest waits in the backlog. Some descriptors are for the database, Redis and the upstream.
        backpressure=max(64, descriptors.raise_limit() - 512),
        workers_kill_timeout=max(1, round(settings.drain_seconds)),
        respawn_failed_workers=True,
        log_enabled=False,
    ).serve()


class _Server(Granian):  # type: ignore[misc] # granian's classes carry no types here
    """The parent: receives the signals, and passes them on in order."""

    _stops_at: float | None = None

    def startup(self, *arguments: Any) -> None:
        _listen((signal.SIGTERM, signal.SIGINT), self._stop_asked)
        super().startup(*arguments)

    def signal_handler_interrupt(self, *_: Any) -> None:
        """Does nothing: the listener has received it. A handler that sets an event hangs for ever when the signal comes
        while the main thread is about to wait for that same event."""

    def _stop_asked(self) -> None:
        if self._stops_at is None and self.wrks:
            patience = float(self.workers_kill_timeout)
            self._stops_at = time.monotonic() + patience
            self.respawn_failed_workers = False
            for worker in self.wrks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.inner.pid, _DRAIN)
            timer = threading.Timer(patience, self._stop)
            timer.daemon = True
            timer.start()
        else:
            self._stop()

    def _stop(self) -> None:
        if self._stops_at is not None:
            self.workers_kill_timeout = max(1.0, self._stops_at - time.monotonic())
        super().signal_handler_interrupt()

    def shutdown(self, exit_code: int = 0) -> None:
        if self._stops_at is not None:
            # A child that received the signal too (systemd sends it to all) has ended by itself, as it should.
            self.interrupt_children.clear()
        super().shutdown(exit_code)


def application() -> Door:
    """What the serving process serves; drains when asked to."""
    service = start("api")
    pulse = service.heartbeats.start("api")
    parent = os.getppid()

    def drain() -> None:
        if not service.draining.is_set():
            service.draining.set()
            threading.Thread(target=_drain, args=(service, pulse, parent), name="drain", daemon=True).start()

    return Door(
        create_app(service),
        service.settings.max_creates,
        service.keys.environment,
        drain,
        may_read=partial(cors.may_read, service),
    )


def _drain(service: Service, pulse: Pulse, parent: int) -> None:
    seconds = service.settings.drain_seconds
    last = threading.Timer(seconds - min(_LAST_SECONDS, seconds / 3), service.upstream.hang_up)
    last.daemon = True
    last.start()
    log.info("api.draining")
    if service.placer.close(seconds):
        log.info("api.drained")
    else:
        log.error("api.not_drained")
    pulse.stop()
    if os.getppid() == parent:
        os.kill(parent, signal.SIGTERM)


def _listen(numbers: Sequence[int], act: Callable[[], None]) -> None:
    """Call `act` on a thread of its own whenever one of these signals comes that has any handler: no matter what the
    main thread is doing, and without interrupting it."""
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        # `pythons` must live as long as this: its descriptor is the one that is written to.
        while pythons.fileno() >= 0:
            for number in ours.recv(64):
                if number in numbers:
                    act()

    threading.Thread(target=listen, name="signals", daemon=True).start()
