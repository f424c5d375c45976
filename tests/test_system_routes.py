"""Health, readiness, time, and the description of the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from swap.sandbox.world import World
from swap.web import create_app
from swap.wiring import Service
from tests.conftest import Clock, alive
from tests.servers import served

NOBODY_REDIS = "redis://127.0.0.1:1"


def ready(service: Service) -> tuple[int, dict[str, str]]:
    with served(service) as url:
        answer = requests.get(f"{url}/readyz", timeout=30)
    body = answer.json()
    assert set(body) == {"ready", "parts"}
    assert body["ready"] is (answer.status_code == 200)
    return answer.status_code, body["parts"]


@pytest.fixture
def running(service: Service) -> Iterator[None]:
    """The parts that the service cannot do without, as far as they show that they live."""
    with alive(service, "scheduler"), alive(service, "worker", "watch", "push"):
        yield


@pytest.mark.usefixtures("running")
def test_a_service_with_all_its_parts_is_ready(service: Service) -> None:
    ok = ("database", "catalog", "redis", "upstream", "scheduler", "worker")
    assert ready(service) == (200, dict.fromkeys(ok, "ok"))


def test_parts_that_are_silent_are_said_and_stop_nobody(service: Service, clock: Clock) -> None:
    with alive(service, "scheduler"), alive(service, "worker", "push"):
        status, parts = ready(service)
        assert (status, parts["scheduler"], parts["worker"]) == (200, "ok", "silent"), "none polls"
    clock.advance(16)
    assert ready(service)[1]["scheduler"] == "silent"


def test_being_asked_again_reads_no_migration_from_the_disk(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(service)
    monkeypatch.setattr("swap.store.database.ScriptDirectory", None)
    assert ready(service)[1]["database"] == "ok"


@pytest.mark.usefixtures("running")
def test_redis_away_is_said_and_stops_nobody(service: Service, other_service: Callable[..., Service]) -> None:
    status, parts = ready(other_service(redis_url=NOBODY_REDIS))
    assert (status, parts["redis"]) == (200, "away")
    assert set(parts.values()) == {"ok", "away"}


def test_a_database_that_nobody_answers_for_is_not_ready(
    service: Service, other_service: Callable[..., Service]
) -> None:
    status, parts = ready(other_service(database_url="postgresql+psycopg://nobody@127.0.0.1:1/none"))
    assert (status, parts["database"], parts["catalog"], parts["redis"]) == (503, "away", "unknown", "ok")


def test_a_database_never_migrated_is_not_ready(
    service: Service, other_service: Callable[..., Service], tmp_path: Path
) -> None:
    status, parts = ready(other_service(database_url=f"sqlite:///{tmp_path}/empty.db"))
    assert (status, parts["database"], parts["catalog"]) == (503, "not_migrated", "unknown")


def test_a_catalog_never_loaded_is_not_ready_and_nothing_is_claimed_of_the_upstream(
    other_service: Callable[..., Service],
) -> None:
    status, parts = ready(other_service())
    assert (status, parts["catalog"], parts["upstream"]) == (503, "never_loaded", "unknown")


def test_an_upstream_that_fails_leaves_us_ready_with_the_catalog_we_have(
    service: Service, other_service: Callable[..., Service], clock: Clock
) -> None:
    broken = other_service(upstream_url="http://127.0.0.1:1")
    assert not broken.catalog.refresh()
    status, parts = ready(broken)
    assert (status, parts["catalog"], parts["upstream"]) == (200, "ok", "away")
    clock.advance(6 * 60)
    assert ready(broken)[1]["catalog"] == "stale"
    clock.advance(60 * 60)
    status, parts = ready(broken)
    assert (status, parts["catalog"]) == (200, "expired")


def test_health_asks_nobody(other_service: Callable[..., Service]) -> None:
    alone = other_service(database_url="postgresql+psycopg://nobody@127.0.0.1:1/none", redis_url=NOBODY_REDIS)
    with served(alone) as url:
        answer = requests.get(f"{url}/healthz", timeout=30)
    assert (answer.status_code, answer.json()["success"]) == (200, True)


def test_time_is_the_clock_that_signatures_are_held_against(service: Service, api_url: str, clock: Clock) -> None:
    clock.advance(3600)
    answer = requests.get(f"{api_url}/v1/time", timeout=30).json()
    assert abs(answer["data"]["time"] - clock.time() * 1000) < 5000


@pytest.fixture
def spec(service: Service, api_url: str) -> dict[str, Any]:
    answer = requests.get(f"{api_url}/openapi.json", timeout=30)
    assert answer.status_code == 200
    content: dict[str, Any] = answer.json()
    return content


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child)


def test_every_route_of_ours_is_described(spec: dict[str, Any], service: Service) -> None:
    described = {(path, method) for path, item in spec["paths"].items() for method in item if method != "parameters"}
    served_routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in create_app(service).url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS") and not rule.endpoint.startswith("api-docs.")
    }
    assert described == served_routes


def test_the_description_holds_together(spec: dict[str, Any]) -> None:
    assert spec["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(spec["info"])
    for node in walk(spec):
        if isinstance(reference := node.get("$ref"), str):
            found: Any = spec
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]
    for path, item in spec["paths"].items():
        named = set(re.findall(r"{(\w+)}", path))
        declared = {p["name"] for p in item.get("parameters", []) if p["in"] == "path"}
        assert declared == named, path
        for method in set(item) - {"parameters"}:
            assert item[method]["responses"], path
            assert item[method]["summary"], path


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/quotes", "/v1/addresses/validate"])
def test_posts_that_take_a_body_describe_it(path: str, spec: dict[str, Any]) -> None:
    body = spec["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].startswith("#/components/schemas/")


def test_the_description_tells_how_requests_are_signed_and_what_errors_look_like(spec: dict[str, Any]) -> None:
    schemes = spec["components"]["securitySchemes"]
    signed = {name for name, scheme in schemes.items() if scheme["name"] in ("X-API-Key", "X-Timestamp", "X-Signature")}
    assert spec["security"] == [{name: [] for name in signed}] and len(signed) == 3
    schemas = spec["components"]["schemas"]
    default = spec["components"]["responses"]["DEFAULT_ERROR"]["content"]["application/json"]["schema"]["$ref"]
    assert set(schemas[default.rpartition("/")[2]]["properties"]) == {"success", "error", "timestamp"}
    assert schemas["PlaceOrder"]["properties"]["amount"]["type"] == "string"


def test_the_description_needs_no_key_and_names_no_secret(service: Service, api_url: str, world: World) -> None:
    text = requests.get(f"{api_url}/openapi.json", timeout=30).text
    assert service.settings.upstream_secret_key not in text
    assert service.settings.upstream_url not in text
