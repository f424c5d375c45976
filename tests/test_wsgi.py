"""app.py as a process of its own, behind a plain WSGI server and behind granian, whose WSGI environ copies the environment
of the whole process: no secret may be left there for a request to see."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from swap.domain.signing import sign_request
from swap.processes.supervise import free_port
from swap.settings import SECRETS
from swap.web.body import MAX_BODY_BYTES
from swap.wiring import Service
from tests.conftest import Clock

pytestmark = [pytest.mark.process, pytest.mark.sqlite_only]

ROOT = Path(__file__).parents[1]
SECRET_KEY = "the text under which this child keeps its secrets"

# The real app, and one more answer: what a request can see.
PROBE = """
import os
import flask
from app import app

@app.before_request
def probe():
    if flask.request.path == "/probe":
        return {"environ": {k: repr(v) for k, v in flask.request.environ.items()}, "process": dict(os.environ)}
"""
SERVERS = {
    "plain": """
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from probe import app

class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass

class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True

make_server("127.0.0.1", int(sys.argv[1]), app, server_class=Threaded, handler_class=Quiet).serve_forever()
""",
    "granian": """
import sys
from granian import Granian

Granian(
    "probe:app",
    address="127.0.0.1",
    port=int(sys.argv[1]),
    interface="wsgi",
    workers=1,
    blocking_threads=4,
    log_enabled=False,
).serve()
""",
}


@dataclass(frozen=True)
class Child:
    server: str
    port: int
    secrets: tuple[str, ...]
    log: Path

    def ask(
        self, method: str, target: str, body: Any = None, headers: dict[str, str | bytes] | None = None, **options: Any
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target, body, headers or {}, **options)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()


@pytest.fixture(params=SERVERS)
def child(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> Iterator[Child]:
    settings = service.settings
    given = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url or "",
        "UPSTREAM_SECRET_KEY": "sk_seen_by_nobody_1",
        "UPSTREAM_OLD_KEYS": "pk_old:sk_seen_by_nobody_2",
        "UPSTREAM_PROXY": "http://user:seen-by-nobody-3@127.0.0.1:1",
        "SWAP_SECRET_KEYS": SECRET_KEY,
    }
    assert set(given) == set(SECRETS)
    secrets = ("seen_by_nobody", "seen-by-nobody", *given.values())
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SWAP_", "UPSTREAM_"))}
    environ |= given
    environ |= {
        "UPSTREAM_URL": settings.upstream_url,
        "UPSTREAM_PUBLIC_KEY": "pk_new",
        "SWAP_TYPO": "a name we do not know",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "PROBE_OPEN": "seen by all",
    }
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    (tmp_path / "serve.py").write_text(SERVERS[request.param], encoding="utf-8")
    log = tmp_path / "child.log"
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "serve.py"), str(port)],
            env=environ,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    made = Child(request.param, port, secrets, log)
    try:
        while True:
            try:
                assert made.ask("GET", "/healthz")[0] == 200
                break
            except (ConnectionRefusedError, ConnectionResetError):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_app_py_serves_behind_any_wsgi_server_and_gives_no_secret_away(
    child: Child, other_service: Callable[..., Service], clock: Clock
) -> None:
    status, seen = child.ask("GET", "/probe", headers={"X-Timestamp": "here"})
    assert status == 200
    assert "here" in seen["environ"]["HTTP_X_TIMESTAMP"]
    assert seen["process"]["PROBE_OPEN"] == "seen by all"
    if child.server == "granian":
        assert "seen by all" in seen["environ"]["PROBE_OPEN"], (
            "granian no longer copies the environment; say so in docs/architecture.md"
        )
    for name in SECRETS:
        assert name not in seen["environ"]
        assert name not in seen["process"]
    text = json.dumps(seen)
    for secret in child.secrets:
        assert secret not in text

    made = other_service(secret_keys=(SECRET_KEY,)).keys.create("shop")

    def call(method: str, path: str, body: bytes = b"", **options: Any) -> tuple[int, Any]:
        timestamp = str(int(clock.time() * 1000))
        headers = {
            "X-API-Key": made.key,
            "X-Timestamp": timestamp,
            "X-Signature": sign_request(made.secret, method, path, "", timestamp, body),
            **options.pop("headers", {}),
        }
        return child.ask(method, quote(path), options.pop("send", body), headers, **options)

    # Ready: the parts were built from settings that are no longer in the environment.
    status, answer = child.ask("GET", "/readyz")
    assert (status, answer["ready"]) == (200, True)
    assert answer["parts"].items() >= {"database": "ok", "catalog": "ok", "redis": "ok", "upstream": "ok"}.items()
    # The path is read as bytes whatever the server does to it.
    assert call("GET", "/v1/instruments/DOT/Asset Hub(Polkadot)")[0] == 200
    for name in ("Zü€日本", "a+b;c=d%41", "\u00ff"):
        status, answer = call("GET", f"/v1/instruments/{name}/x")
        assert (status, answer["error"]["code"]) == (404, "INSTRUMENT_UNKNOWN"), name
    assert call("GET", "/v1/orders/\x00")[0] == 404
    status, answer = call("GET", "/v1/orders", headers={"X-API-Key": b"\xff\xc3\xa4"})
    assert (status, answer["error"]["code"]) in ((401, "KEY_UNKNOWN"), (401, "CREDENTIALS_MISSING"))
    # Bodies: whole, too large, and from granian in chunks (wsgiref reads none).
    body = json.dumps({"currency": "XRP", "network": "XRP", "address": "x"}).encode()
    assert call("POST", "/v1/addresses/validate", body)[0] == 200
    assert call("GET", "/v1/orders", headers={"Content-Length": str(MAX_BODY_BYTES + 1)})[0] == 413
    if child.server == "granian":
        assert (
            call("POST", "/v1/addresses/validate", body, send=iter([body[:7], body[7:]]), encode_chunked=True)[0] == 200
        )
        large = b" " * (MAX_BODY_BYTES + 1)
        status, answer = call("POST", "/v1/quotes", large, send=iter([large]), encode_chunked=True)
        assert (status, answer["error"]["code"]) == (413, "BODY_TOO_LARGE")

    lines = [json.loads(line) for line in child.log.read_text(encoding="utf-8").splitlines()]
    assert {"settings.unknown"} <= {line["event"] for line in lines}
    assert [line["name"] for line in lines if line["event"] == "settings.unknown"] == ["SWAP_TYPO"]
    for secret in (*child.secrets, made.secret):
        assert secret not in child.log.read_text(encoding="utf-8")


def test_app_py_refuses_bad_settings_with_every_sentence_and_no_secret(tmp_path: Path) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "SWAP_ENV": "production",
        "DATABASE_URL": "mysql://root:seen-by-nobody@db/x",
        "SWAP_SECRET_KEYS": "seen-by-nobody",
    }
    done = subprocess.run(
        [sys.executable, "-c", "import app"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    for name in ("DATABASE_URL must be", "SWAP_SECRET_KEYS must be", "REDIS_URL must be given", "UPSTREAM_URL must be"):
        assert name in done.stderr
    assert "seen-by-nobody" not in done.stderr + done.stdout
