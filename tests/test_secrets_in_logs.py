"""The real processes at LOG_LEVEL=DEBUG, with every kind of secret in use: none of them is in anything that they write, and
no log has what a client said of its customer."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.sync.client import connect

from swap.domain.signing import sign_request
from tests.conftest import SANDBOX_KEYS, Clock
from tests.receivers import Receiver
from tests.signed_client import Calls, raw
from tests.test_processes import Gate, Processes, fast_world, processes
from tests.waiting import until

__all__ = ["fast_world", "processes"]


class Ear(Gate):
    """Lets everything pass, and keeps the signatures that the upstream is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.signatures: set[str] = set()

    def __call__(self, app: Any) -> Any:
        inner = super().__call__(app)

        def wrapped(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if signature := environ.get("HTTP_X_API_SIGNATURE"):
                self.signatures.add(signature)
            answer: Iterable[bytes] = inner(environ, start_response)
            return answer

        return wrapped


@pytest.fixture
def gate() -> Iterator[Ear]:
    gate = Ear()
    yield gate
    gate.opened.set()


@dataclass(frozen=True)
class Key:
    key: str
    secret: str


def on_the_stream(url: str, *messages: dict[str, str]) -> list[str]:
    """The type of the answer to each of these first messages."""
    answers = []
    for message in messages:
        with connect(url, open_timeout=10) as socket:
            socket.send(json.dumps({"op": "auth", "id": "1", **message}))
            answers.append(json.loads(socket.recv(10))["type"])
    return answers


def written(folder: Path) -> dict[str, bytes]:
    """The logs of all processes, and the database."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.process
@pytest.mark.sqlite_only
@pytest.mark.timeout(60)
def test_no_secret_token_or_signature_is_in_anything_that_the_processes_write_at_debug(
    processes: Processes, gate: Ear, receiver: Receiver, clock: Clock, tmp_path: Path
) -> None:
    processes.environ |= {"LOG_LEVEL": "DEBUG", "SWAP_WEBHOOK_ALLOW_PRIVATE": "1"}
    for part in ("scheduler", "worker", "stream"):
        processes.start(part)
    made = processes.tool("keys", "create", "--name", "shop", "--scopes", "orders,webhooks,quotes,support", "--json")
    used = {"the key's secret": made["secret"], "the upstream's secret key": SANDBOX_KEYS[1]}
    used["the secret keys of the service"] = processes.environ["SWAP_SECRET_KEYS"]
    processes.api()
    calls = Calls(Key(made["key"], made["secret"]), processes.api_url, clock)  # type: ignore[arg-type] # all it reads

    def signed(name: str) -> None:
        used[f"the signature of {name}"] = str(calls.last["X-Signature"])

    hook = calls.post("/v1/webhook-endpoints", {"url": receiver.url})
    used["the webhook's secret"] = hook.data["secret"]
    signed("a webhook")
    terms = ["kim.log@shop.example", "Rechnung 4711-log"]
    placed = calls.order(search_terms=terms)
    assert placed.status == 201, placed.text
    signed("an order")
    assert calls.order(search_terms=terms[:1]).status == 409
    assert calls.order(client_order_id="order-2", search_terms=[*terms, terms[0].upper()]).status == 422
    for path, name in (("/v1/orders", "search_term"), ("/v1/support/orders", "clue")):
        assert len(calls("GET", path, f"{name}={quote(terms[0])}").data["orders"]) == 1
        assert calls("GET", path, f"{name}={quote(terms[0])}&colour=red").status == 422
        assert calls.get(f"{path}?{name}={quote(terms[0])}", X_Signature="0" * 64).status == 401
    order, token = placed.data["id"], placed.data["tracking"]["token"]
    used["the tracking token"] = token
    wrong, bearer = secrets.token_hex(32), f"{token[:-8]}{secrets.token_hex(8)}"
    used |= {"a wrong signature": wrong, "a wrong token": bearer}
    assert calls.get("/v1/orders", X_Signature=wrong).code == "SIGNATURE_INVALID"
    assert calls.get("/v1/orders", X_API_Key=made["secret"]).code == "KEY_UNKNOWN"
    assert calls.post("/v1/quotes", {"user": made["secret"]}).status == 422
    for given, status in ((token, 200), (bearer, 401)):
        assert (
            raw(calls.url, "GET", f"/v1/orders/{order}", headers={"Authorization": f"Bearer {given}"}).status == status
        )
    assert raw(calls.url, "GET", f"/v1/orders/{order}?token={token}").status == 401

    stamp = str(int(time.time() * 1000))
    live = sign_request(made["secret"], "GET", "/v1/stream", "", stamp, b"")
    used["the signature of a socket"] = live
    by_key = {"key": made["key"], "timestamp": stamp}
    url = f"ws://{processes.environ['SWAP_STREAM_BIND']}/v1/stream"
    first = [{**by_key, "signature": live}, {**by_key, "signature": wrong}, {"token": token}, {"token": bearer}]
    assert on_the_stream(url, *first) == ["authenticated", "error", "authenticated", "error"]

    until(lambda: len(receiver.got) > 1, 30)
    for number, request in enumerate(receiver.got):
        for signature in request.headers["webhook-signature"].split(" "):
            used[f"webhook signature {number}"] = signature.removeprefix("v1,")
    used |= {f"upstream signature {number}": text for number, text in enumerate(sorted(gate.signatures))}
    assert len(gate.signatures) > 0

    found = written(tmp_path)
    assert {"api.log", "worker.log", "scheduler.log", "stream.log", "swap.db"} <= found.keys()
    assert b'"level": "debug"' in found["worker.log"] + found["scheduler.log"]
    assert b"web.refused" in found["api.log"]
    assert [
        (name, file)
        for name, secret in used.items()
        for spelling in {secret, quote(secret, safe="")}
        for file, content in found.items()
        if spelling.encode() in content
    ] == []
    for term in terms:
        for spelling in {term.casefold(), quote(term).casefold()}:
            told = [file for file, content in found.items() if spelling in content.decode(errors="replace").casefold()]
            assert [file for file in told if not file.startswith("swap.db")] == [], "a customer is in a log"
