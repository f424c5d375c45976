"""What this process can open no connection for says nothing about the other side, and was certainly not sent."""

from __future__ import annotations

import errno
import gc
import os
import resource
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from swap.errors import NotSent, OutOfDescriptors
from swap.infra import descriptors
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import CreateRequest, RateRequest
from swap.wiring import Service
from tests.conftest import Shop, look
from tests.factories import read_order
from tests.scripted_upstream import ORDER, RATE, World, asking, reply, serving

CREATE = CreateRequest("BTC", "BTC", "XRP", "XRP", Decimal("0.0125"), "rExampleDestination")


@contextmanager
def left(count: int) -> Iterator[None]:
    """So many descriptors are left to this process, and none is set free behind its back: sockets that earlier tests left to
    the garbage collector would be."""
    gc.collect()
    gc.disable()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + count + 8, limits[1]))
    held: list[int] = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
    try:
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        gc.enable()
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def rate(client: UpstreamClient, deadline: float = 5) -> None:
    client.rate(RateRequest("BTC", "BTC", "USDT", "TRC20", amount=Decimal("0.0125")), deadline=deadline)


@pytest.mark.server
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("count", [0, 1])
def test_a_create_without_a_descriptor_was_not_sent_for_a_reason_of_our_own(host: str, count: int) -> None:
    world = World()
    with serving(reply(201, ORDER)) as server:
        client = world.client(server.url.replace("127.0.0.1", host))
        with pytest.raises(NotSent) as failed, left(count):
            client.create_order(CREATE)
        assert failed.value.cause == "descriptors"
        assert isinstance(failed.value.__cause__, OutOfDescriptors)
        assert server.seen == []
        client.create_order(CREATE)


@pytest.mark.server
@pytest.mark.parametrize("count", [0, 1, 2])
def test_certificates_that_cannot_be_opened_are_no_tls_that_was_refused(certificate: Path, count: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    world = World()
    with serving(reply(201, ORDER), tls=context) as server:
        client = world.client(server.url)
        with pytest.raises(NotSent) as failed, left(count):
            client.create_order(CREATE)
        assert failed.value.cause == "descriptors"
        with pytest.raises(NotSent) as failed:
            client.create_order(CREATE)
        assert failed.value.cause == "tls"


@pytest.mark.server
def test_a_read_without_a_descriptor_is_journalled_as_such_even_on_a_kept_connection() -> None:
    with asking(reply(200, RATE), reply(200, RATE)) as (client, server, world):
        rate(client)
        with pytest.raises(OutOfDescriptors), left(0):
            rate(client, 0.05)  # no time for another attempt
        assert [call.outcome for call in world.calls] == ["OK", "OUT_OF_DESCRIPTORS"]
        assert len(server.seen) == 1
        rate(client)


@pytest.mark.server
def test_it_is_said_once_a_minute_as_an_alarm() -> None:
    with asking() as (client, _, _), capture_logs() as logs, left(0):
        for _ in range(3):
            with pytest.raises(NotSent):
                client.create_order(CREATE)
    alarms = [line for line in logs if line["log_level"] == "critical"]
    assert alarms == [{"event": "process.out_of_descriptors", "log_level": "critical"}]


def test_a_catalog_that_could_not_be_asked_for_tells_nothing_about_the_upstream(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> None:
        raise OutOfDescriptors

    monkeypatch.setattr(service.catalog, "_fetch", none_left)
    assert not service.catalog.refresh()
    assert not service.catalog.refresh_fails()


def test_a_poll_that_could_not_be_made_counts_as_no_failure(
    service: Service, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = shop.place()["id"]

    def none_left(*_: object, **__: object) -> None:
        raise OutOfDescriptors

    monkeypatch.setattr(service.upstream, "order", none_left)
    look(service, order_id)
    assert read_order(service.database, order_id).failures == 0


def test_whether_a_descriptor_is_to_be_had_is_told() -> None:
    assert not descriptors.none_left()
    with left(0):
        assert descriptors.none_left()
    assert descriptors.used_up([ValueError(), OSError(errno.ENFILE, "too many")])
    assert not descriptors.used_up([OSError(errno.ECONNREFUSED, "refused")])
