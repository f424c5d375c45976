"""Recipes of the documents, run as they are printed. Those of docs/stream.md reconnect: the gateway dies under them, and
they miss nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from swap.sandbox import rates
from swap.wiring import Service
from tests.conftest import XRP_ADDRESS, Clock, Shop
from tests.factories import make_order, move, read_order
from tests.streams import PATIENCE, Running

DOCS = Path(__file__).resolve().parents[1] / "docs"
NODE = shutil.which("node")


def recipe(language: str, document: str = "stream.md") -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / document).read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def change(service: Service, order_id: str) -> int:
    """One more public event; returns its sequence."""
    order = read_order(service.database, order_id)
    moved = move(service.database, order, user_id=str(order.sequence))
    assert moved is not None
    service.feed.publish()
    return moved.sequence


def hears_all(service: Service, order_id: str, running: Running, heard: queue.Queue[int]) -> None:
    """Sequences come without gap or repeat from the first one heard, though the gateway is away for a while."""
    first = None
    until = time.monotonic() + PATIENCE
    while first is None and time.monotonic() < until:
        last = change(service, order_id)
        with contextlib.suppress(queue.Empty):
            first = heard.get(timeout=0.5)
    running.stop()
    assert first is not None, "nothing was heard"
    change(service, order_id)
    last = change(service, order_id)
    again = Running(service, port=running.port)
    try:
        assert [heard.get(timeout=PATIENCE) for _ in range(last - first)] == list(range(first + 1, last + 1))
    finally:
        again.stop()


def test_the_recipe_for_backends_survives_a_gateway(service: Service, shop: Shop) -> None:
    order_id = make_order(service.database, shop.client_id).id
    running = Running(service)
    names: dict[str, Any] = {}
    exec(recipe("python"), names)
    heard: queue.Queue[int] = queue.Queue()
    loop = asyncio.new_event_loop()

    async def deal_with(event: dict[str, Any]) -> None:
        heard.put(event["sequence"])

    task = loop.create_task(names["follow"](running.url, shop.key, shop.secret, None, deal_with))

    def follow() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        hears_all(service, order_id, running, heard)
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(PATIENCE)


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_recipe_for_browsers_survives_a_gateway(service: Service, shop: Shop) -> None:
    order = shop.place("order-1")
    running = Running(service)
    last = f"follow({running.url!r}, {order['tracking']['token']!r}, {order['id']!r}, o => console.log(o.sequence));"
    script = recipe("javascript") + last
    assert NODE is not None
    # WebSocket has been behind a switch before it came to stay; browsers all have it.
    command = [NODE, "--experimental-websocket", "-e", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        heard: queue.Queue[int] = queue.Queue()
        assert process.stdout is not None
        lines = process.stdout

        def read() -> None:
            for line in lines:
                heard.put(int(line))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            hears_all(service, order["id"], running, heard)
        finally:
            process.kill()
            reader.join(PATIENCE)


# As browsers do: they tell the page's origin, and show an answer to the page only where it says that they may.
BROWSER = """
const send = globalThis.fetch, page = %s;
globalThis.fetch = async (url, options) => {
  const answer = await send(url, {...options, headers: {...options.headers, Origin: page}});
  if (answer.headers.get("Access-Control-Allow-Origin") !== page) throw new TypeError("Failed to fetch");
  return answer;
};
"""


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_recipe_for_pages_gets_an_offer_that_the_backend_can_order(
    service: Service, shop: Shop, api_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A floating rate is another one every five seconds. Here it stays until the order is placed, however long node takes.
    monkeypatch.setattr(rates, "REFRESH_SECONDS", 300)
    clock.advance(300 - clock.time() % 300)
    page = "https://shop.example"
    key = service.publishable.create("checkout", shop.client_id, [page])["key"]
    code = recipe("javascript", "browsers.md")
    head = 'const API = "https://swap.example.com", KEY = "pk_test_0c09a08665a86b14b49b6b07";'
    assert head in code
    code = code.replace(head, f"const API = {json.dumps(api_url)}, KEY = {json.dumps(key)};")
    wanted = "{currency: 'BTC', network: 'BTC'}, {currency: 'XRP', network: 'XRP'}, '0.0125'"
    calls = f"""
    (async () => {{
      const good = await offer({wanted}, {json.dumps(XRP_ADDRESS)}, '7');
      const bad = await offer({wanted}, 'rWrong', '7').catch(error => error.message);
      const refused = await ask('GET', '/v1/instruments/NO/NO').catch(error => error.code);
      console.log(JSON.stringify({{good, bad, refused}}));
    }})();
    """
    script = BROWSER % json.dumps(page) + code + calls
    assert NODE is not None
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["refused"], "address" in told["bad"]) == ("INSTRUMENT_UNKNOWN", True)
    placed = shop.place(
        quote_id=told["good"]["quoteId"],
        destination_validation_id=told["good"]["validationId"],
        destination_memo="7",
    )
    assert placed["amount_to_get"] == told["good"]["amountToGet"]
