"""The parts as real processes: they start, work together, stop when told, and lose nothing when killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis

from swap.processes.supervise import free_port
from swap.sandbox.server import running
from swap.sandbox.world import World
from swap.sdk import SwapApiError, SwapClient
from swap.store.database import Database
from swap.tools.demo import run as run_demo
from tests.conftest import BITCOIN, SANDBOX_KEYS, XRP, XRP_ADDRESS
from tests.waiting import until

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
SWAP = [sys.executable, "-m", "swap.cli"]


class Processes:
    """Commands of `swap` with one environment; whatever still runs at the end is killed."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self.environ, self.folder = environ, folder
        self.api_url = f"http://{environ['SWAP_API_BIND']}"
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [*SWAP, *arguments], env=self.environ, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )
        self.running.append(process)
        return process

    def tool(self, *arguments: str) -> Any:
        done = subprocess.run([*SWAP, *arguments], env=self.environ, capture_output=True, cwd=ROOT, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout) if done.stdout else None

    def api(self) -> subprocess.Popen[bytes]:
        process = self.start("api")
        until(lambda: _status(f"{self.api_url}/readyz") == 200, 30)
        return process

    def client(self) -> SwapClient:
        made = self.tool("keys", "create", "--name", "shop", "--json")
        return SwapClient(self.api_url, made["key"], made["secret"])

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def close(self) -> None:
        for process in self.running:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process and all it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def _status(url: str) -> int | None:
    try:
        return requests.get(url, timeout=2).status_code
    except requests.RequestException:
        return None


class Gate:
    """WSGI middleware at the upstream's port: holds back the answer to a create until it is opened."""

    def __init__(self) -> None:
        self.closed = False
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, app: Any) -> Any:
        def wrapped(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            answer = list(app(environ, start_response))
            if self.closed and environ["PATH_INFO"].endswith("/orders/public/create"):
                self.reached.set()
                self.opened.wait(30)
            return answer

        return wrapped


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def fast_world() -> World:
    """A world in which an order is over in twelve seconds."""
    return World(*SANDBOX_KEYS, speed=30)


@pytest.fixture
def processes(
    database_url: str, redis: Redis, redis_url: str, fast_world: World, gate: Gate, tmp_path: Path
) -> Iterator[Processes]:
    with running(fast_world, wrap=gate) as upstream:
        environ = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "UPSTREAM_URL": upstream,
            "UPSTREAM_PUBLIC_KEY": SANDBOX_KEYS[0],
            "UPSTREAM_SECRET_KEY": SANDBOX_KEYS[1],
            "UPSTREAM_RPS": "100",
            "UPSTREAM_CREATE_TIMEOUT": "3",
            "SWAP_SECRET_KEYS": "a key for processes of at least 32 characters",
            "SWAP_TIME_SCALE": "30",
            "SWAP_API_BIND": f"127.0.0.1:{free_port()}",
            "SWAP_STREAM_BIND": f"127.0.0.1:{free_port()}",
            "SWAP_DRAIN_SECONDS": "3",
        }
        with closing(Processes(environ, tmp_path)) as processes:
            yield processes


def place(client: SwapClient, client_order_id: str) -> dict[str, Any]:
    return client.place_order(
        client_order_id=client_order_id,
        source=BITCOIN,
        target=XRP,
        amount="0.0125",
        destination_address=XRP_ADDRESS,
        destination_memo="7",
        attempts=1,
    )


def test_an_order_travels_from_create_to_payout_through_real_processes(processes: Processes) -> None:
    processes.start("scheduler")
    processes.start("worker")
    processes.api()
    client = processes.client()
    order = place(client, "order-1")

    until(lambda: client.order(order["id"])["final"], 40)

    types = [event["type"] for event in client.order_events(order["id"]) if event["type"] != "order.updated"]
    assert types[:2] == ["order.created", "order.awaiting_deposit"]
    assert types[-1] == "order.completed"
    record = processes.tool("orders", "show", order["id"], "--json")
    assert sorted(record) == ["attempts", "deliveries", "events", "order", "upstream_orders"]
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["done"]
    assert SANDBOX_KEYS[1] not in processes.logs()


def test_every_part_ends_in_time_with_code_0_on_sigterm(processes: Processes) -> None:
    parts = {name: processes.start(name) for name in ("scheduler", "worker", "stream")}
    parts["api"] = processes.api()
    stream = f"http://{processes.environ['SWAP_STREAM_BIND']}/healthz"
    until(lambda: _status(stream) == 200, 30)
    until(lambda: "worker.started" in processes.logs() and "scheduler.started" in processes.logs(), 30)
    for process in parts.values():
        process.terminate()
    for name, process in parts.items():
        assert process.wait(3 + 2) == 0, name


def test_killing_the_api_inside_a_create_neither_loses_nor_doubles_the_order(
    processes: Processes, gate: Gate, fast_world: World
) -> None:
    processes.start("scheduler")
    processes.start("worker")
    api = processes.api()
    client = processes.client()
    gate.closed = True

    def place_in_vain() -> None:
        with pytest.raises(requests.RequestException):
            place(client, "order-1")

    caller = threading.Thread(target=place_in_vain)
    caller.start()
    assert gate.reached.wait(20)
    kill(api)
    caller.join(20)
    gate.closed = False
    gate.opened.set()

    processes.api()
    order = place(client, "order-1")
    assert order["status"] == "creating"
    until(lambda: client.order(order["id"])["status_reason"] == "create_in_doubt", 30)
    assert place(client, "order-1")["id"] == order["id"]
    assert len(fast_world.orders()) == 1
    assert client.order(order["id"])["deposit"] is None


def placing(client: SwapClient, client_order_id: str) -> tuple[threading.Thread, list[dict[str, Any]]]:
    """Place an order from a thread; what was answered is in the list once the thread has ended."""
    answers: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(place(client, client_order_id)))
    thread.start()
    return thread, answers


def test_a_create_open_on_sigterm_is_in_doubt_when_the_api_has_ended_and_its_caller_hears_so(
    processes: Processes, gate: Gate, fast_world: World
) -> None:
    processes.environ |= {"UPSTREAM_CREATE_TIMEOUT": "15", "SWAP_DRAIN_SECONDS": "7"}
    scheduler = processes.start("scheduler")  # for the catalog
    api = processes.api()
    scheduler.terminate()  # without a worker it would settle the order itself
    client = processes.client()
    gate.closed = True
    caller, answers = placing(client, "order-1")
    assert gate.reached.wait(20)
    api.terminate()
    assert api.wait(7 + 2) == 0, processes.logs()
    caller.join(5)
    (order,) = answers
    assert (order["status"], order["status_reason"]) == ("creating", "create_in_doubt")
    record = processes.tool("orders", "show", order["id"], "--json")
    assert record["order"]["internal"]["status"] == "in_doubt"
    assert [(attempt["outcome"], attempt["cause"]) for attempt in record["attempts"]] == [("unknown", "timeout")]
    assert len(fast_world.orders()) == 1


def test_from_sigterm_on_the_api_is_not_ready_and_finishes_what_it_has_begun(processes: Processes, gate: Gate) -> None:
    processes.environ |= {"UPSTREAM_CREATE_TIMEOUT": "15", "SWAP_DRAIN_SECONDS": "60"}
    processes.start("scheduler")
    api = processes.api()
    client = processes.client()
    gate.closed = True
    caller, answers = placing(client, "order-1")
    assert gate.reached.wait(20)
    api.terminate()
    until(lambda: _status(f"{processes.api_url}/readyz") == 503, 30)
    assert requests.get(f"{processes.api_url}/readyz", timeout=10).json()["parts"]["api"] == "draining"
    with pytest.raises(SwapApiError) as refused:
        place(client, "order-2")
    assert (refused.value.status, refused.value.code, refused.value.retry) == (503, "STOPPING", "same_request")
    (known,) = client.orders()
    assert known["status"] == "creating", "reading goes on"

    gate.opened.set()
    caller.join(20)
    assert answers[0]["deposit"]["payable"] is True
    assert api.wait(20) == 0, "once nothing is open it does not wait for its time to be over"


def test_a_sigterm_to_the_whole_group_ends_the_api_in_order_as_well(processes: Processes) -> None:
    processes.start("scheduler")
    api = processes.api()
    os.killpg(api.pid, signal.SIGTERM)
    assert api.wait(3 + 2) == 0


def test_a_serving_process_that_dies_is_replaced(processes: Processes) -> None:
    processes.start("scheduler")
    api = processes.api()
    (serving,) = _children(api.pid)
    os.kill(serving, signal.SIGKILL)
    until(lambda: _children(api.pid) not in ([], [serving]), 20)
    until(lambda: _status(f"{processes.api_url}/readyz") == 200, 30)
    api.terminate()
    assert api.wait(3 + 2) == 0


def test_migrating_twice_at_once_is_safe(processes: Processes, backend: str, tmp_path: Path) -> None:
    if backend == "sqlite":
        processes.environ["DATABASE_URL"] = f"sqlite:///{tmp_path / 'fresh.db'}"
    both = [processes.start("migrate"), processes.start("migrate")]
    assert [process.wait(60) for process in both] == [0, 0], processes.logs()
    with closing(
        Database(processes.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
    ) as database:
        assert database.migrated()


def test_the_tools_need_no_running_part(processes: Processes) -> None:
    processes.environ.pop("REDIS_URL")
    made = processes.tool("keys", "create", "--name", "shop", "--client", "Shop Ltd", "--scopes", "orders", "--json")
    assert sorted(made) == ["client", "key", "name", "scopes", "secret"]
    assert made["client"] == "Shop Ltd"
    new = processes.tool("keys", "rotate", made["key"], "--overlap", "30m", "--reason", "yearly", "--json")
    assert sorted(new) == sorted(made)
    processes.tool("keys", "expire", made["key"], "--in", "1h", "--json")
    assert [key["state"] for key in processes.tool("keys", "list", "--json")["keys"]] == ["live", "live"]
    processes.tool("clients", "limits", "Shop Ltd", "--weight-per-minute", "77", "--by", "anna", "--json")
    assert processes.tool("clients", "list", "--json")["clients"][0]["weight_per_minute"] == 77
    acts = [(act["act"], act["actor"]) for act in processes.tool("audit", "--json")["audit"]]
    assert acts[0] == ("clients.limit", "anna")
    assert [act for act, _ in acts] == ["clients.limit", "keys.expire", "keys.rotate", "keys.create"]
    processes.environ["SWAP_WEBHOOK_ALLOW_PRIVATE"] = "1"
    hook = processes.tool("webhooks", "add", "--key", made["key"], "--url", "http://127.0.0.1:9/hook", "--json")
    assert sorted(hook) == ["enabled", "id", "secret", "url", "verified_at"]
    assert processes.tool("feed", "new-epoch", "--json") != processes.tool("feed", "new-epoch", "--json")


PUBLISHABLE = ["keys", "create-publishable", "--name", "checkout", "--client", "nobody"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["orders", "show", "ord_none"], 1, "ORDER_NOT_FOUND"),
        (["keys", "create"], 2, "--name"),
        (["keys", "rotate", "swk_none"], 1, "KEY_UNKNOWN"),
        (["keys", "expire", "swk_none", "--in", "soon"], 2, "no duration"),
        (["clients", "limits", "nobody", "--weight-per-minute", "5"], 1, "CLIENT_UNKNOWN"),
        (["keys", "create", "--name", "x", "--scopes", "all"], 1, "No such scope"),
        ([*PUBLISHABLE, "--origin", "https://shop.example"], 1, "CLIENT_UNKNOWN"),
        ([*PUBLISHABLE, "--origin", "https://shop.example/"], 1, "as browsers send it"),
        (PUBLISHABLE, 2, "--origin"),
        (["keys", "origins", "pk_test_none", "--origin", "https://shop.example"], 1, "KEY_UNKNOWN"),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_a_command_that_fails_says_why_and_exits_accordingly(
    processes: Processes, arguments: list[str], code: int, said: str
) -> None:
    done = subprocess.run([*SWAP, *arguments], env=processes.environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_that_cannot_be_used_are_all_told_at_once_by_every_part() -> None:
    environ = {"PATH": os.environ["PATH"], "UPSTREAM_RPS": "0", "SWAP_API_BIND": "nowhere", "REDIS_URL": "redis://x"}
    for part in ("api", "worker", "scheduler", "stream", "up"):
        done = subprocess.run([*SWAP, part], env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1, part
        assert "UPSTREAM_RPS" in done.stderr
        assert "SWAP_API_BIND" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_part_without_redis_refuses_with_a_sentence(tmp_path: Path) -> None:
    # The checkout's own var/ may belong to a service that runs right now.
    if (ROOT / "var" / "redis.url").exists():
        pytest.skip("an embedded Redis of this checkout is, or was, running")
    environ = {"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite:///{tmp_path / 'swap.db'}"}
    done = subprocess.run([*SWAP, "worker"], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "swap up" in done.stderr


def test_up_runs_all_parts_and_stops_them_all_even_in_the_background_of_a_shell(tmp_path: Path) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{tmp_path / 'swap.db'}",
        "SWAP_SECRET_KEYS": "a key for processes of at least 32 characters",
        "SWAP_API_BIND": f"127.0.0.1:{free_port()}",
        "SWAP_STREAM_BIND": f"127.0.0.1:{free_port()}",
    }
    if (ROOT / "var" / "redis.url").exists():
        pytest.skip("a service of this checkout is, or was, running: its Redis would be adopted")
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", 8090)) == 0:
            pytest.skip("something listens at the sandbox's own port")
    # As a shell starts a background job: SIGINT is ignored.
    background = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh", *SWAP, "up"]
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(background, env=environ, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
    try:
        until(lambda: _status(f"http://{environ['SWAP_API_BIND']}/readyz") == 200, 60)
        children = _children(up.pid)
        assert len(children) >= 7
        up.send_signal(signal.SIGINT)
        assert up.wait(20) == 0
    finally:
        kill(up)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 10)


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def test_the_demo_walks_one_swap_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_demo(tmp_path / "demo") == 0, capsys.readouterr().out
    shown = capsys.readouterr().out
    assert "paid out" in shown
    assert "make run" in shown


def test_a_demo_that_fails_says_at_which_step_and_stops_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.tools.demo.AMOUNT", "0.00000001")
    assert run_demo(tmp_path / "demo") == 1
    shown = capsys.readouterr().out
    assert "Ask for a quote" in shown
    assert "BELOW_MINIMUM" in shown or "amount" in shown


def test_up_names_the_port_that_is_taken_and_starts_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        environ = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": f"sqlite:///{tmp_path / 'swap.db'}",
            "SWAP_SECRET_KEYS": "a key for processes of at least 32 characters",
            "REDIS_URL": "redis://127.0.0.1:1",
            "SWAP_API_BIND": bind,
        }
        done = subprocess.run([*SWAP, "up"], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert bind in done.stderr and "SWAP_API_BIND" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_webhook_says_why(processes: Processes) -> None:
    made = processes.tool("keys", "create", "--name", "shop", "--json")
    command = [*SWAP, "webhooks", "add", "--key", made["key"], "--url", "http://127.0.0.1:9/hook"]
    done = subprocess.run(command, env=processes.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "url: " in done.stderr
    assert "SWAP_WEBHOOK_ALLOW_PRIVATE" in done.stderr
