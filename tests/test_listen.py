"""`swap listen`: shows the feed as it grows and forwards it as signed webhooks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from swap.sdk import SwapApiError, SwapClient
from swap.tools.listen import Forward, follow
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import make_order, make_orders
from tests.receivers import receiving

ROOT = Path(__file__).resolve().parents[1]


class Over(Exception):
    """Raised in place of sleeping, when a test has seen enough."""


def sleeping(pauses: int) -> Any:
    """A sleep that does not, so many times; then it is over."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > pauses:
            raise Over

    sleep.slept = slept  # type: ignore[attr-defined] # the list goes with the function
    return sleep


def trouble(what: str) -> None:
    raise AssertionError(what)


def everything(events: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    with pytest.raises(Over):
        for event in events:
            found.append(event)
    return found


def test_it_begins_behind_a_cursor_or_with_what_happens_from_now_on(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.push.feed._SCAN", 3)
    make_orders(service.database, 7, shop.client_id)
    service.feed.publish()
    cursor = shop.api.events(limit=2)["next"]
    found = everything(follow(shop.api, cursor, on_trouble=trouble, sleep=sleeping(0), clock=clock.time))
    assert found == shop.api.events(after=cursor)["events"]

    def happen(_seconds: float) -> None:
        if later.slept:
            raise Over
        later.slept.append(1)
        make_order(service.database, shop.client_id)
        service.feed.publish()

    later = sleeping(9)
    assert len(everything(follow(shop.api, None, on_trouble=trouble, sleep=happen, clock=clock.time))) == 1


def test_it_tries_again_later_and_later_while_the_service_is_away(shop: Shop) -> None:
    told: list[str] = []
    nobody = SwapClient("http://127.0.0.1:1", shop.key, shop.secret)
    sleep = sleeping(5)
    assert everything(follow(nobody, "x", on_trouble=told.append, sleep=sleep)) == []
    assert sleep.slept == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    assert told == ["ConnectionError"] * 6
    assert shop.secret not in "".join(told)


def test_what_trying_again_does_not_help_ends_it(shop: Shop, clock: Clock) -> None:
    with pytest.raises(SwapApiError) as caught:
        next(follow(shop.api, "000000000009ffffff", on_trouble=trouble, clock=clock.time))
    assert caught.value.code == "CURSOR_RESET"


def test_what_it_forwards_is_the_webhook_the_service_would_send(service: Service, shop: Shop) -> None:
    with receiving() as receiver:
        service.endpoints.add(shop.key, f"{receiver.url}/real", trusted=True)
        make_order(service.database, shop.client_id)
        service.feed.publish()
        service.deliverer.deliver_due()
        forward = Forward(f"{receiver.url}/mine")
        (event,) = shop.api.events()["events"]
        assert forward.send(event) == "204"
        (real,), (mine,) = receiver.on("/real"), receiver.on("/mine")
        assert mine.body == real.body
        assert mine.headers["webhook-id"] == real.headers["webhook-id"] == event["id"]
        assert Webhook(forward.secret).verify(mine.body, mine.headers)
        receiver.answers["/mine"] = 500
        assert forward.send(event) == "500"
    assert forward.send(event) == "ConnectionError"


def test_the_command_shows_and_forwards_until_it_is_stopped_even_in_the_background_of_a_shell(
    service: Service, shop: Shop, api_url: str, tmp_path: Path
) -> None:
    start = shop.api.events()["next"]
    secret_file = tmp_path / "secret"
    secret_file.write_text(shop.secret + "\n")
    make_order(service.database, shop.client_id)
    service.feed.publish()
    with receiving() as receiver:
        command = [
            # As a shell starts a background job: SIGINT is ignored.
            *("/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"),
            *(sys.executable, "-m", "swap.cli", "listen", "--key", shop.key, "--secret-file", str(secret_file)),
            *("--url", api_url, "--after", start, "--json", "--forward-to", f"{receiver.url}/hook"),
        ]
        environ = {"PATH": os.environ["PATH"]}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        killer = threading.Timer(60, process.kill)
        killer.start()
        try:
            assert process.stdout is not None
            shown = json.loads(process.stdout.readline())
            assert [shown] == shop.api.events()["events"]
            while not receiver.got:
                assert process.poll() is None
                threading.Event().wait(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            killer.cancel()
            process.kill()
    assert process.returncode == 0
    secret = said.split("the secret ")[1].split()[0]
    assert Webhook(secret).verify(receiver.got[0].body, receiver.got[0].headers)
    assert shop.secret not in said


def test_the_command_needs_a_secret_and_says_how_to_give_it(shop: Shop) -> None:
    command = [sys.executable, "-m", "swap.cli", "listen", "--key", shop.key]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "SWAP_LISTEN_SECRET" in done.stderr


def test_a_wrong_secret_is_told_and_ends_it(api_url: str, shop: Shop) -> None:
    command = [sys.executable, "-m", "swap.cli", "listen", "--key", shop.key, "--url", api_url]
    environ = {"PATH": os.environ["PATH"], "SWAP_LISTEN_SECRET": "wrong"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("SIGNATURE_INVALID")
