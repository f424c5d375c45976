"""The limits on what another server may cost: time for an exchange, time to connect, the pause it may ask for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from swap.infra.deadline import AddressInfo, Deadline, retry_after

pytestmark = pytest.mark.server

SENT_AT = "Thu, 09 Oct 2025 08:53:20 GMT"
LATER = "Thu, 09 Oct 2025 08:53:27 GMT"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def info(port: int, family: int = socket.AF_INET) -> AddressInfo:
    return family, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_guarded_socket_is_shut_when_the_time_is_over(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    ours.settimeout(20)
    began = time.monotonic()
    with Deadline(0.2) as deadline:
        deadline.guard(ours)
        assert 0 < deadline.remaining() <= 0.2
        assert ours.recv(1) == b"", "shut looks like the end"
        assert deadline.expired
        with pytest.raises(TimeoutError):
            deadline.remaining()
    assert 0.15 <= time.monotonic() - began < 5


def test_a_socket_that_comes_too_late_is_shut_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    ours.settimeout(20)
    with Deadline(60) as deadline:
        deadline.expire()
        deadline.guard(ours)
        assert ours.recv(1) == b""


def test_once_it_is_left_it_shuts_nothing_any_more(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with Deadline(60) as deadline:
        deadline.guard(ours)
    deadline.expire()
    assert not deadline.expired
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"


def test_no_timer_outlives_the_exchange() -> None:
    before = threading.active_count()
    for _ in range(20):
        with Deadline(60):
            pass
    until = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_it_connects_to_the_first_address_that_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, Deadline(5) as deadline:
        port = int(listening.getsockname()[1])
        option = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with deadline.connect([info(closed_port()), info(port)], at_most=5, options=(option,)) as connected:
            assert connected.getpeername() == ("127.0.0.1", port)
            assert connected.getsockopt(*option[:2]) == 1
            deadline.expire()
            connected.settimeout(5)
            assert connected.recv(1) == b"", "it was guarded already"


def test_the_addresses_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []

    def silence(_address: AddressInfo, seconds: float, _options: object) -> None:
        shares.append(seconds)
        raise TimeoutError("timed out")

    monkeypatch.setattr("swap.infra.deadline.open_socket", silence)
    with Deadline(3) as deadline, pytest.raises(TimeoutError):
        deadline.connect([info(port) for port in (1, 2, 3)], at_most=5)
    assert shares == [pytest.approx(1, abs=0.05), pytest.approx(1.5, abs=0.05), pytest.approx(3, abs=0.05)]


def test_a_refused_connection_is_reported_as_such_and_no_address_as_out_of_time() -> None:
    with Deadline(5) as deadline:
        with pytest.raises(ConnectionRefusedError):
            deadline.connect([info(closed_port())], at_most=5)
        with pytest.raises(TimeoutError):
            deadline.connect([], at_most=5)
        deadline.expire()
        with pytest.raises(TimeoutError):
            deadline.connect([info(closed_port())], at_most=5)


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("3", "", 3),
        (" 3 ", "", 3),
        ("0", "", 0),
        ("9" * 400, "", 60),
        (LATER, SENT_AT, 7),
        (SENT_AT, LATER, 0),
        ("Thu, 09 Oct 2125 08:53:20 GMT", SENT_AT, 60),
        ("-5", "", None),
        ("1.5", "", 2),
        ("0.2", "", 1),
        ("1760000005", SENT_AT, 5),
        ("1760000005000", SENT_AT, 5),
        ("1760000005.25", SENT_AT, 6),
        ("1750000000", SENT_AT, 0),
        ("\u00b2", "", None),
        ("1.", "", None),
        ("inf", "", None),
        ("1e3", "", None),
        ("\u0663", "", None),  # a digit, but no ASCII digit
        ("soon", SENT_AT, None),
        ("", SENT_AT, None),
    ],
)
def test_a_pause_is_a_number_of_seconds_or_a_date_on_the_servers_clock(
    value: str, date: str, seconds: float | None
) -> None:
    assert retry_after(value, date, longest=60) == seconds


def test_a_date_may_be_measured_against_our_own_clock() -> None:
    now = datetime(2025, 10, 9, 8, 53, 25, tzinfo=UTC)
    assert retry_after(LATER, "", longest=60, now=now) == 2
    assert retry_after(LATER, "yesterday", longest=60, now=now) == 2
    assert retry_after("1760000007", "", longest=60, now=now) == 2
    assert retry_after(LATER, "", longest=60) == 0
    assert retry_after(LATER, SENT_AT, longest=60, now=now) == 7, "the server's own clock goes first"
