"""The main job in front of your eyes: one BTC to XRP swap with a destination tag, on real processes started for it.

Embedded Redis, SQLite, the sandbox upstream, API, workers, scheduler and a webhook receiver; nothing but Python is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import requests
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from swap.infra import private_files
from swap.processes.supervise import PartFailed, Supervisor, free_port, start_redis
from swap.sdk import SwapApiError, SwapClient

# The sandbox plays customer and blockchain twenty times faster than life, and the service keeps up.
SPEED = 20
BITCOIN, XRP = ("BTC", "BTC"), ("XRP", "XRP")
# The sandbox's address for the scenario in which all goes well; it pays nothing anywhere.
DESTINATION, TAG = "rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw", "1234567"
REFUND = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
AMOUNT = "0.0125"
FINISH_SECONDS = 50.0


class StepFailed(Exception):
    """A step of the demo did not do what it must; the message says what was seen."""


class Demo:
    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.console = folder, console
        self.logs = folder / "logs"
        self.supervisor = Supervisor(logs=self.logs, drain_seconds=3)
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("SWAP_", "UPSTREAM_"))}
        self.step_name = "start"
        self.client: SwapClient | None = None
        self.receiver = ""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.step_name = name
        started = time.monotonic()
        with self.console.status(f"{name} ..."):
            yield
        self.console.print(f"[green]✓[/green] {name} [dim]({time.monotonic() - started:.1f} s)[/dim]")

    def say(self, text: str) -> None:
        self.console.print(f"    {text}", highlight=False)

    # --- the steps ---------------------------------------------------------------------------------------------------

    def start_parts(self) -> None:
        api, upstream = free_port(), free_port()
        self.environ |= {
            "DATABASE_URL": f"sqlite:///{self.folder / 'demo.db'}",
            "REDIS_URL": start_redis(self.supervisor, self.folder),
            "UPSTREAM_URL": f"http://127.0.0.1:{upstream}",
            "UPSTREAM_PUBLIC_KEY": "pk_sandbox_demo",
            "UPSTREAM_SECRET_KEY": "sk_sandbox_demo",
            "UPSTREAM_RPS": "50",
            "SWAP_TIME_SCALE": str(SPEED),
            "SWAP_WEBHOOK_ALLOW_PRIVATE": "1",
            "SWAP_API_BIND": f"127.0.0.1:{api}",
            "SWAP_DRAIN_SECONDS": "3",
        }
        keys = ["--public-key", "pk_sandbox_demo", "--secret-key", "sk_sandbox_demo"]
        self.supervisor.start_swap(
            "sandbox", ["sandbox", "--port", str(upstream), "--speed", str(SPEED), *keys], self.environ
        )
        self.tool("migrate")
        self.supervisor.start_swap("scheduler", ["scheduler"], self.environ)
        self.supervisor.start_swap("worker-watch", ["worker", "--queue", "watch"], self.environ)
        self.supervisor.start_swap("worker-push", ["worker", "--queue", "push"], self.environ)
        self.supervisor.start_swap("api", ["api"], self.environ)
        key = self.tool("keys", "create", "--name", "demo-shop", "--json")
        self.client = SwapClient(f"http://127.0.0.1:{api}", key["key"], key["secret"])

        port = free_port()
        self.receiver = f"http://127.0.0.1:{port}"
        hook = self.tool("webhooks", "add", "--key", key["key"], "--url", f"{self.receiver}/hook", "--json")
        receiver = [sys.executable, "-m", "swap.tools.demo_receiver", str(port)]
        self.supervisor.start("receiver", receiver, {**self.environ, "WEBHOOK_SECRET": hook["secret"]})
        self.supervisor.wait_for("receiver", lambda: _answers(self.receiver))
        self.supervisor.wait_for("api", lambda: _answers(f"http://127.0.0.1:{api}/readyz"), 30)
        self.supervisor.wait_for("worker-push", self.receiver_is_verified)

    def receiver_is_verified(self) -> bool:
        """Whether it has answered its challenge: events are sent only then."""
        assert self.client is not None
        return all(endpoint["verified_at"] for endpoint in self.client.webhook_endpoints())

    def tool(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(  # noqa: S603 - our own command, no shell
            [sys.executable, "-m", "swap.cli", *arguments],
            env=self.environ,
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise StepFailed(
                f"swap {' '.join(arguments[:2])} ended with {done.returncode}: {done.stderr.decode()[-500:]}"
            )
        return orjson.loads(done.stdout) if done.stdout else {}

    def refused(self, field: str, code: str, **changed: Any) -> str:
        """Place an order that must be refused on `field` with `code`; returns the message that the caller receives."""
        try:
            self.place("demo-refused", **changed)
        except SwapApiError as error:
            for problem in error.details.get("fields", {}).get(field, []):
                if problem["code"] == code:
                    return f"{problem['message']}{' ' + problem['hint'] if problem.get('hint') else ''}"
            raise StepFailed(f"refused, but not for {field} {code}: {error} {error.details}") from error
        raise StepFailed(f"an order without a good {field} was accepted")

    def place(self, client_order_id: str, **changed: Any) -> dict[str, Any]:
        assert self.client is not None
        request: dict[str, Any] = {
            "client_order_id": client_order_id,
            "source": BITCOIN,
            "target": XRP,
            "amount": AMOUNT,
            "destination_address": DESTINATION,
            "destination_memo": TAG,
            "refund_address": REFUND,
            **changed,
        }
        return self.client.place_order(**request)

    def follow(self, order_id: str) -> dict[str, Any]:
        """Show each status as it is pushed to the receiver and verified there; returns the last order pushed."""
        expected = ["created", "awaiting_deposit", "confirming", "exchanging", "sending", "completed"]
        until = time.monotonic() + FINISH_SECONDS
        sequence = 0
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("waiting for the first push", total=len(expected))
            while time.monotonic() < until:
                pushed = [p for p in requests.get(self.receiver, timeout=5).json() if p["data"]["order_id"] == order_id]
                for push in pushed[sequence:]:
                    sequence += 1
                    order = push["data"]["order"]
                    if push["data"]["sequence"] != sequence:
                        raise StepFailed(f"push {sequence} carries sequence {push['data']['sequence']}")
                    progress.console.print(f"    {_push_line(push)}", highlight=False)
                    if order["status"] in expected:
                        progress.update(
                            task, completed=expected.index(order["status"]) + 1, description=order["status"]
                        )
                    if order["final"]:
                        return dict(order)
                time.sleep(0.1)
        raise StepFailed(f"not finished within {FINISH_SECONDS:.0f} s; {sequence} pushes were verified")

    def walk(self) -> None:
        with self.step("Start Redis, SQLite, sandbox upstream, API, workers, scheduler, webhook receiver"):
            self.start_parts()
        assert self.client is not None
        with self.step("Load the catalog"):
            instruments = self.client.instruments()
            target = self.client.instrument(*XRP)
        self.say(f"{len(instruments)} instruments; XRP needs a {target['memo_name']}")
        with self.step("Ask for a quote"):
            quote = self.client.quote(BITCOIN, XRP, AMOUNT)
        self.say(f"{AMOUNT} BTC -> {quote['amount_to_get']} XRP, until {quote['expires_at']}")
        with self.step("A wrong address is refused"):
            problem = self.refused("destination_address", "ADDRESS_INVALID", destination_address=REFUND)
        self.say(problem)
        with self.step("A missing destination tag is refused"):
            problem = self.refused("destination_memo", "MEMO_REQUIRED", destination_memo=None)
        self.say(problem)
        with self.step("Place the order"):
            order = self.place("demo-1", quote_id=quote["quote_id"])
            if order["status"] != "awaiting_deposit" or not order["deposit"]["payable"]:
                raise StepFailed(f"the order is {order['status']}, deposit {order['deposit']}")
            again = self.place("demo-1", quote_id=quote["quote_id"])
            if again["id"] != order["id"]:
                raise StepFailed("the same client_order_id made a second order")
        self.say(f"order {order['id']}, upstream order {order['upstream_order_id']}; sent twice, made once")
        self.say(f"pay {order['deposit']['amount']} BTC to [bold]{order['deposit']['address']}[/bold]")
        self.step_name = "Follow the order by its webhooks"
        last = self.follow(order["id"])
        if last["status"] != "completed" or not last["withdrawals"]:
            raise StepFailed(f"the order ended {last['status']}")
        self.console.print(f"[green]✓[/green] {self.step_name}")
        payout = last["withdrawals"][0]
        self.say(
            f"paid out {payout['amount']} XRP to {last['destination']['address']}, tag {last['destination']['memo']}"
        )
        self.say(f"transaction {payout['tx_id']}")


def run(folder: Path) -> int:
    """Walk the demo in a folder of its own; returns the exit code."""
    console = Console()
    shutil.rmtree(folder, ignore_errors=True)
    private_files.folder(folder)
    demo = Demo(folder, console)
    started = time.monotonic()
    try:
        demo.walk()
    except (StepFailed, PartFailed, SwapApiError, requests.RequestException, KeyboardInterrupt) as error:
        console.print(f"[red]✗ {demo.step_name}[/red]: {error or type(error).__name__}", highlight=False)
        console.print(f"  The logs of all parts are in {demo.logs}", highlight=False)
        return 1
    finally:
        demo.supervisor.stop()
    console.print(
        f"\n[bold green]Done[/bold green] in {time.monotonic() - started:.0f} s; everything is stopped. "
        "Keep it running with [bold]make run[/bold].",
        highlight=False,
    )
    return 0


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


def _push_line(push: dict[str, Any]) -> str:
    order, data = push["data"]["order"], push["data"]
    extra = ""
    if push["type"] == "order.updated" and order["deposits"]:
        extra = f", {order['deposits'][0]['confirmations']} of {order['confirmations_required']} confirmations"
    return f"{push['timestamp'][11:19]}  #{data['sequence']}  {push['type']:<24} funds {order['funds']}{extra}"
