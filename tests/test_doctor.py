"""What `swap doctor` tells about an installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from swap.settings import Settings
from swap.wiring import Service, doctor
from tests.conftest import Clock, Shop, alive
from tests.factories import forget_upstream_orders
from tests.polling import place
from tests.scripted_upstream import reply, serving


def findings(service: Service) -> dict[str, tuple[str, str]]:
    return {finding.part: (finding.state, finding.said) for finding in doctor(service).examine()}


def test_a_sound_installation_is_found_sound(service: Service, shop: Shop) -> None:
    place(shop)
    with alive(service, "scheduler"), alive(service, "worker", "watch", "push"), alive(service, "api"):
        found = findings(service)
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["worker watch"][1] == "1 live"
    assert found["upstream"][1] == "lists 1 orders of this key"
    assert found["signature"][1] == "a good signature is accepted, a wrong one refused"


def test_keys_that_are_old_or_that_nobody_uses_are_reported(service: Service, shop: Shop, clock: Clock) -> None:
    def said() -> tuple[str, str]:
        return findings(service)["keys"]

    assert said() == ("ok", "1 live")
    clock.advance(timedelta(days=91))
    assert said() == ("warn", f"not used for 90 days, revoke: {shop.key}")
    caller = service.keys.caller(shop.key)
    assert caller is not None
    clock.advance(timedelta(days=300))
    service.keys.note_use(caller.key, "127.0.0.1")
    assert said() == ("warn", f"older than 365 days, rotate: {shop.key}")
    service.keys.revoke(shop.key)
    assert said() == ("ok", "0 live")


def test_a_publishable_key_has_no_secret_that_grows_old_but_may_be_used_by_nobody(
    service: Service, shop: Shop, clock: Clock
) -> None:
    key = service.publishable.create("checkout", shop.client_id, ["https://shop.example"])["key"]
    service.keys.revoke(shop.key)
    clock.advance(timedelta(days=91))
    assert findings(service)["keys"] == ("warn", f"not used for 90 days, revoke: {key}")
    clock.advance(timedelta(days=300))
    service.keys.note_use(key, "https://shop.example")
    assert findings(service)["keys"] == ("ok", "1 live")


def test_parts_that_are_silent_are_reported(service: Service, clock: Clock) -> None:
    assert findings(service)["worker watch"] == ("warn", "none has run within a day")
    with alive(service, "stream"), alive(service, "scheduler"), alive(service, "worker", "push"):
        pass  # each ends as it was told to
    with alive(service, "api"), alive(service, "scheduler"), alive(service, "worker", "watch"):
        clock.advance(10)
        assert findings(service)["worker watch"] == ("ok", "1 live")
        clock.advance(6)  # all of them were killed
        found = findings(service)
        assert found["stream"][0] == "ok", "an installation may have none"
        assert {found[part][0] for part in ("api", "scheduler", "worker watch", "worker push")} == {"bad"}
        assert found["worker watch"][1].startswith("silent since 20")
        with alive(service, "scheduler"), alive(service, "worker", "watch"):
            found = findings(service)
            assert found["scheduler"] == ("warn", "1 live, 1 went silent within a day without being stopped")
            assert found["worker push"][0] == "bad"


def test_orders_that_another_program_made_with_our_key_are_reported(service: Service, shop: Shop) -> None:
    place(shop)
    with service.database.write() as session:
        forget_upstream_orders(session)  # as if we had never made it
    state, said = findings(service)["key"]
    assert state == "warn"
    assert "1 orders were made with this key and are not known here" in said


def test_an_upstream_that_checks_no_signature_is_found_out(
    service: Service, other_service: Callable[..., Service]
) -> None:
    """A list that answers whoever asks proves nothing about the key pair."""
    with serving(reply(200, []), reply(200, [])) as upstream:
        blind = other_service(upstream_url=upstream.url)
        assert findings(blind)["signature"][0] == "bad"


def test_a_wrong_key_pair_and_a_database_without_its_tables_are_bad_and_end_with_code_1(
    settings: Settings, tmp_path: Path
) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{tmp_path}/empty.db",
        "REDIS_URL": "redis://127.0.0.1:1",
        "UPSTREAM_URL": settings.upstream_url,
        "UPSTREAM_PUBLIC_KEY": settings.upstream_public_key,
        "UPSTREAM_SECRET_KEY": "sk_sandbox_wrong",
        "SWAP_SECRET_KEYS": "a key for tests of at least 32 characters",
    }
    command = [str(Path(sys.executable).with_name("swap")), "doctor", "--json"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1, ended.stderr
    states = {finding["part"]: finding["state"] for finding in json.loads(ended.stdout)["findings"]}
    assert states == {"database": "bad", "redis": "warn", "upstream": "bad"}
    assert "sk_sandbox_wrong" not in ended.stdout + ended.stderr
