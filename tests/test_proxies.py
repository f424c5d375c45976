"""The proxies in `deploy/proxy`, where they are installed: what is signed arrives as it was, and nothing else gets in."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

from swap.domain.signing import sign_request
from swap.processes.supervise import free_port
from swap.sdk import SwapClient
from tests.test_processes import Processes, fast_world, gate, processes
from tests.waiting import until

__all__ = ["fast_world", "gate", "processes"]
pytestmark = [pytest.mark.process, pytest.mark.sqlite_only]

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "proxy"


class Proxied:
    """The service behind a proxy of that name: `url` is what clients call."""

    def __init__(self, name: str, processes: Processes, certificate: Path, folder: Path) -> None:
        self.port, self.certificate = free_port(), certificate
        self.url = f"https://127.0.0.1:{self.port}"
        self.secrets = processes.tool("keys", "create", "--name", "shop", "--allowed-from", "127.0.0.1/32", "--json")
        api, stream = processes.environ["SWAP_API_BIND"], processes.environ["SWAP_STREAM_BIND"]
        text = (FOLDER / {"caddy": "Caddyfile", "nginx": "nginx.conf"}[name]).read_text()
        file = folder / "proxy.conf"
        if name == "nginx":
            for before, after in (
                ("127.0.0.1:8080", api),
                ("127.0.0.1:8081", stream),
                ("listen 443", f"listen 127.0.0.1:{self.port}"),
                ("/etc/ssl/swap.pem", str(certificate)),
                ("/etc/ssl/swap.key", str(certificate)),
                ("/var/log/nginx/access.log", f"{folder}/access.log"),
            ):
                assert before in text
                text = text.replace(before, after)
            here = f"pid {folder}/nginx.pid; daemon off; error_log {folder}/error.log;\n"
            command = ["nginx", "-c", str(file), "-p", str(folder)]
            text = here + text.replace("http {", f"http {{ {_temporary(folder)}", 1)
            environ = processes.environ
        else:
            tls = f"\ttls {certificate} {certificate}\n\t# What is in no list"
            text = text.replace("\t# What is in no list", tls, 1).replace(
                "{\n\tservers", "{\n\tadmin off\n\tservers", 1
            )
            command = ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
            environ = {
                **processes.environ,
                "SWAP_DOMAIN": self.url,
                "SWAP_API": api,
                "SWAP_STREAM": stream,
                "HOME": str(folder),
                "XDG_DATA_HOME": str(folder),
                "XDG_CONFIG_HOME": str(folder),
            }
        file.write_text(text)
        with (folder / "proxy.log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        processes.running.append(self.process)

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=20, **options)

    def answers(self) -> bool:
        try:
            return self.get("/v1/time").status_code == 200
        except requests.RequestException:
            return False


def _temporary(folder: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)


@pytest.fixture(params=["caddy", "nginx"])
def proxied(
    request: pytest.FixtureRequest,
    processes: Processes,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Proxied]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    processes.environ["SWAP_TRUSTED_PROXIES"] = "127.0.0.0/8"
    processes.start("scheduler")
    processes.start("stream")
    processes.api()
    proxied = Proxied(request.param, processes, certificate, tmp_path)
    try:
        until(proxied.answers, 20, lambda: (tmp_path / "proxy.log").read_text())
        yield proxied
    finally:
        proxied.process.terminate()
        proxied.process.wait(10)


def test_what_is_signed_passes_a_proxy_and_what_is_not_ours_does_not(proxied: Proxied, tmp_path: Path) -> None:
    client = SwapClient(proxied.url, proxied.secrets["key"], proxied.secrets["secret"])
    client._http.verify = str(proxied.certificate)  # of nobody that anybody trusts
    placed = client.place_order(
        client_order_id="one",
        source=("BTC", "BTC"),
        target=("XRP", "XRP"),
        amount="0.0125",
        destination_address="rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw",
        destination_memo="7",
    )
    assert client.order(placed["id"])["id"] == placed["id"]
    assert client.instrument("DOT", "Asset Hub(Polkadot)")["network"] == "Asset Hub(Polkadot)"
    assert [order["id"] for order in client.orders(user_id="ü & b+c")] == []
    assert list(client.orders(search_term="kim@shop.example")) == []
    for log in ("proxy.log", "access.log"):
        if (tmp_path / log).exists():
            assert "kim" not in (tmp_path / log).read_text(), "a customer is in a log"

    assert proxied.get("/v1/orders", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 401
    for inside in ("/healthz", "/readyz", "/", "/metrics", "//v1/time", "/v1/../healthz"):
        assert proxied.get(inside).status_code == 404, inside
    answer = requests.post(f"{proxied.url}/v1/orders", b"x" * 70_000, timeout=20)
    # Caddy finds out while it passes the body on, when the service has refused it already.
    assert answer.status_code in (413, 502)


def test_the_stream_passes_a_proxy(proxied: Proxied) -> None:
    context = ssl.create_default_context(cafile=str(proxied.certificate))
    stamp = str(int(time.time() * 1000))
    signature = sign_request(proxied.secrets["secret"], "GET", "/v1/stream", "", stamp, b"")
    with connect(f"wss://127.0.0.1:{proxied.port}/v1/stream", ssl=context, proxy=None) as socket:
        said = {"op": "auth", "key": proxied.secrets["key"], "timestamp": stamp, "signature": signature}
        socket.send(json.dumps(said))
        assert json.loads(socket.recv(10))["type"] == "authenticated"
