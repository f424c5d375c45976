"""Reads while the upstream hangs: `GET /v1/orders/{id}` through the real API and real HTTP, first with an upstream that
answers, then with one that was stopped (SIGSTOP) while creates pile up on it. Reads must not notice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from swap.processes.supervise import Supervisor, free_port, start_redis
from swap.sdk import SwapApiError, SwapClient
from swap.store.database import Database

READ_SECONDS = 8.0
READERS = 4
MAX_CREATES = 32
CREATES = 48
BITCOIN, XRP = ("BTC", "BTC"), ("XRP", "XRP")


def run() -> None:
    folder = Path(tempfile.mkdtemp(prefix="swap-bench-"))
    supervisor = Supervisor(logs=folder / "logs")
    try:
        _compare(supervisor, folder)
    finally:
        supervisor.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _compare(supervisor: Supervisor, folder: Path) -> None:
    environ, url = _start(supervisor, folder)
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "swap.cli",
            "keys",
            "create",
            "--name",
            "bench",
            "--weight-per-minute",
            "1000000",
            "--json",
        ],
        env=environ,
        capture_output=True,
        check=True,
    )
    key = json.loads(made.stdout)
    client = SwapClient(url, key["key"], key["secret"])
    order_id = _place(client, "first")[0]["id"]
    sandbox = next(part.process for part in supervisor._parts if part.name == "sandbox")

    answering = _reads(url, key, order_id)
    sandbox.send_signal(signal.SIGSTOP)
    try:
        creates, finish = _pile_up(url, key)
        time.sleep(1.0)
        hanging = _reads(url, key, order_id)
        finish()
    finally:
        sandbox.send_signal(signal.SIGCONT)
    _show(answering, hanging, creates)


def _start(supervisor: Supervisor, folder: Path) -> tuple[dict[str, str], str]:
    api, upstream = free_port(), free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": os.environ.get("BENCH_DATABASE_URL") or f"sqlite:///{folder / 'bench.db'}",
        "REDIS_URL": start_redis(supervisor, folder),
        "UPSTREAM_URL": f"http://127.0.0.1:{upstream}",
        "UPSTREAM_PUBLIC_KEY": "pk_sandbox_bench",
        "UPSTREAM_SECRET_KEY": "sk_sandbox_bench",
        "UPSTREAM_RPS": "1000",
        "SWAP_MAX_CREATES": str(MAX_CREATES),
        "SWAP_SECRET_KEYS": "a key for benchmarks of at least 32 characters",
        "SWAP_API_BIND": f"127.0.0.1:{api}",
        "SWAP_DRAIN_SECONDS": "3",
    }
    keys = ["--public-key", "pk_sandbox_bench", "--secret-key", "sk_sandbox_bench"]
    supervisor.start_swap("sandbox", ["sandbox", "--port", str(upstream), *keys], environ)
    with closing(Database(environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))) as database:
        database.migrate()
    supervisor.start_swap("scheduler", ["scheduler"], environ)
    supervisor.start_swap("api", ["api"], environ)
    url = f"http://127.0.0.1:{api}"
    supervisor.wait_for("api", lambda: _ready(url), 60)
    return environ, url


def _ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def _reads(url: str, key: dict[str, Any], order_id: str) -> list[float]:
    """Seconds of every read, by a few readers at once."""
    taken: list[float] = []
    until = time.monotonic() + READ_SECONDS

    def read() -> None:
        client = SwapClient(url, key["key"], key["secret"])
        while time.monotonic() < until:
            began = time.monotonic()
            client.order(order_id)
            taken.append(time.monotonic() - began)

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def _place(client: SwapClient, name: str) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    try:
        answer = client.place_order(
            client_order_id=name,
            source=BITCOIN,
            target=XRP,
            amount="0.0125",
            destination_address="rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw",
            destination_memo="7",
            attempts=1,
        )
    except SwapApiError as error:
        answer = {"code": error.code, "status": error.status, "retry_after": error.retry_after}
    return answer, time.monotonic() - began


def _pile_up(url: str, key: dict[str, Any]) -> tuple[list[tuple[dict[str, Any], float]], Any]:
    """Creates at once, more than there is room for. Returns their answers and how to wait for the last."""
    answers: list[tuple[dict[str, Any], float]] = []
    threads = [
        threading.Thread(
            target=lambda n=number: answers.append(_place(SwapClient(url, key["key"], key["secret"]), f"order-{n}"))
        )
        for number in range(CREATES)
    ]
    for thread in threads:
        thread.start()

    def finish() -> None:
        for thread in threads:
            thread.join()

    return answers, finish


def _show(answering: list[float], hanging: list[float], creates: list[tuple[dict[str, Any], float]]) -> None:
    table = Table(title=f"GET /v1/orders/{{id}}, {READERS} readers, {READ_SECONDS:.0f} s each")
    for name in ("upstream", "reads/s", "p50 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="left" if name == "upstream" else "right")
    for name, taken in (("answers", answering), (f"hangs, {CREATES} creates piled up", hanging)):
        cuts = statistics.quantiles(taken, n=100)
        figures = (f"{1000 * x:.1f}" for x in (cuts[49], cuts[98], max(taken)))
        table.add_row(name, f"{len(taken) / READ_SECONDS:.0f}", *figures)
    console = Console()
    console.print(table)

    table = Table(title=f"{CREATES} creates at once while it hangs, room for {MAX_CREATES}")
    for name in ("answer", "how many", "Retry-After s", "slowest s"):
        table.add_column(name, justify="left" if name == "answer" else "right")
    for code in sorted({str(answer.get("code") or answer["status"]) for answer, _ in creates}):
        some = [(a, seconds) for a, seconds in creates if str(a.get("code") or a["status"]) == code]
        after = sorted({f"{a['retry_after']:.0f}" for a, _ in some if a.get("retry_after")})
        table.add_row(code, str(len(some)), ", ".join(after), f"{max(seconds for _, seconds in some):.1f}")
    console.print(table)


if __name__ == "__main__":
    run()
