"""API keys: made, found, revoked, and proved by a signature."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from swap.access.clients import Clients
from swap.access.keys import DEFAULT_SCOPES, Caller, KeyOptions, Keys, NewKey
from swap.domain.signing import SignedParts, sign_request
from swap.errors import InvalidRequest, NotAllowed, NotAuthenticated, NotFound, SwapError
from swap.infra.vault import Vault
from swap.store.database import Database
from swap.tables import ApiKey, Client, UsedSignature
from tests.conftest import Clock

OLD, NEW = "the old text, of at least 32 characters", "the new text, of at least 32 characters"


@pytest.fixture
def keys(database: Database, clock: Clock) -> Keys:
    return Keys(database, Vault([OLD]), clock)


def signed(made: NewKey, clock: Clock, **changed: Any) -> dict[str, Any]:
    request: dict[str, Any] = {
        "method": "GET",
        "path": b"/v1/orders",
        "query": b"limit=1",
        "body": b"",
        "timestamp": str(int(clock.time() * 1000)),
    }
    signature = sign_request(made.secret, **request)
    return {**request, "key": made.key, "signature": signature, **changed}


def authenticate(keys: Keys, *, key: str, signature: str, **parts: Any) -> Caller:
    return keys.authenticate(key, signature, SignedParts(**parts))


def code_of(keys: Keys, request: dict[str, Any]) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        authenticate(keys, **request)
    assert caught.value.__cause__ is None
    return caught.value.code


def test_a_key_belongs_to_a_client_named_like_it_unless_told_otherwise(keys: Keys, database: Database) -> None:
    first, second, third = keys.create("shop"), keys.create("shop 2", client="shop"), keys.create("other")
    callers = [keys.caller(made.key) for made in (first, second, third)]
    owners = [caller.client_id for caller in callers if caller is not None]
    assert owners[0] == owners[1] != owners[2]
    with database.read() as session:
        assert set(session.scalars(select(Client.name))) == {"shop", "other"}
    assert (first.client, second.client, first.scopes) == ("shop", "shop", DEFAULT_SCOPES)


def test_the_secret_lies_sealed_and_shows_nowhere(keys: Keys, database: Database) -> None:
    made = keys.create("shop")
    with database.read() as session:
        row = session.scalars(select(ApiKey)).one()
    assert made.secret not in (row.secret_sealed or "")
    assert made.secret not in repr(made)
    assert made.secret not in repr(keys.caller(made.key))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": "  "}, "name"),
        ({"name": "x", "scopes": ["orders", "root"]}, "scopes"),
        ({"name": "x", "weight_per_minute": 0}, "weight_per_minute"),
        ({"name": "x", "weight_per_minute": -1}, "weight_per_minute"),
    ],
)
def test_a_key_that_could_not_be_used_is_not_made(wrong: dict[str, Any], field: str, keys: Keys) -> None:
    with pytest.raises(InvalidRequest) as caught:
        keys.create(**wrong)
    assert set(caught.value.fields) == {field}


def test_scopes_are_kept_once_each(keys: Keys) -> None:
    assert keys.create("x", scopes=["orders", "quotes", "orders"]).scopes == ("orders", "quotes")


def test_a_good_signature_proves_the_caller(keys: Keys, clock: Clock) -> None:
    made = keys.create("shop", scopes=["orders"], weight_per_minute=7)
    caller = authenticate(keys, **signed(made, clock))
    assert (caller.key, caller.scopes, caller.weight_per_minute) == (
        made.key,
        frozenset({"orders:read", "orders:write", "events:read"}),
        7,
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": ""}, "CREDENTIALS_MISSING"),
        ({"timestamp": ""}, "CREDENTIALS_MISSING"),
        ({"signature": ""}, "CREDENTIALS_MISSING"),
        ({"key": "swk_" + "0" * 24}, "KEY_UNKNOWN"),
        ({"key": "x" * 60_000}, "KEY_UNKNOWN"),
        ({"key": "ä\xff"}, "KEY_UNKNOWN"),
        ({"signature": "0" * 64}, "SIGNATURE_INVALID"),
        ({"signature": "ä" * 64}, "SIGNATURE_INVALID"),
        ({"signature": "x"}, "SIGNATURE_INVALID"),
        ({"method": "POST"}, "SIGNATURE_INVALID"),
        ({"path": b"/v1/pairs"}, "SIGNATURE_INVALID"),
        ({"query": b"limit=2"}, "SIGNATURE_INVALID"),
        ({"query": b""}, "SIGNATURE_INVALID"),
        ({"body": b" "}, "SIGNATURE_INVALID"),
        ({"timestamp": "176000000000"}, "TIMESTAMP_MALFORMED"),
        ({"timestamp": "17600000000000"}, "TIMESTAMP_MALFORMED"),
        ({"timestamp": "１７６００００００００００"}, "TIMESTAMP_MALFORMED"),
        ({"timestamp": "1760000000000"}, "TIMESTAMP_OUTSIDE_WINDOW"),
        ({"timestamp": "9999999999999"}, "TIMESTAMP_OUTSIDE_WINDOW"),
    ],
)
def test_whatever_is_wrong_with_a_request_is_named(change: dict[str, Any], code: str, keys: Keys, clock: Clock) -> None:
    assert code_of(keys, signed(keys.create("shop"), clock, **change)) == code


@pytest.mark.parametrize(("offset", "inside"), [(-5000, True), (5000, True), (-5001, False), (5001, False)])
def test_the_window_is_five_seconds_both_ways_to_the_millisecond(
    offset: int, inside: bool, database: Database, clock: Clock
) -> None:
    frozen = clock()
    keys = Keys(database, Vault([OLD]), lambda: frozen)
    made = keys.create("shop")
    timestamp = str(int(frozen.timestamp() * 1000) + offset)
    request = signed(made, clock, timestamp=timestamp)
    request["signature"] = sign_request(made.secret, "GET", b"/v1/orders", b"limit=1", timestamp, b"")
    if inside:
        authenticate(keys, **request)
    else:
        assert code_of(keys, request) == "TIMESTAMP_OUTSIDE_WINDOW"


def test_a_revoked_key_works_for_five_more_seconds_at_most(keys: Keys, database: Database, clock: Clock) -> None:
    made, other = keys.create("shop"), keys.create("shop 2", client="shop")
    authenticate(keys, **signed(made, clock))
    elsewhere = Keys(database, Vault([OLD]), clock)
    assert elsewhere.revoke(made.key)
    assert not elsewhere.revoke(made.key)
    assert not elsewhere.revoke("swk_unknown")
    clock.advance(5)
    assert code_of(keys, signed(made, clock)) == "KEY_UNKNOWN"
    assert elsewhere.caller(made.key) is None
    authenticate(keys, **signed(other, clock))


def test_a_clock_set_back_does_not_keep_a_revoked_key_alive(keys: Keys, clock: Clock) -> None:
    made = keys.create("shop")
    assert keys.caller(made.key) is not None
    keys.revoke(made.key)
    clock.advance(-3600)
    assert keys.caller(made.key) is None


def test_keys_survive_the_rotation_of_the_secret_keys(keys: Keys, database: Database, clock: Clock) -> None:
    made = keys.create("shop")
    authenticate(Keys(database, Vault([NEW, OLD]), clock), **signed(made, clock))
    with pytest.raises(SwapError) as caught:
        authenticate(Keys(database, Vault([NEW]), clock), **signed(made, clock))
    assert caught.value.code == "SEALED_SECRET"


def test_a_signature_is_spent_once_for_all_processes(keys: Keys, database: Database, clock: Clock) -> None:
    made = keys.create("shop")
    request = signed(made, clock)
    caller = authenticate(keys, **request)
    keys.spend(caller, request["signature"])
    for process in (keys, Keys(database, Vault([OLD]), clock)):
        with pytest.raises(NotAuthenticated) as caught:
            process.spend(caller, request["signature"])
        assert (caught.value.code, caught.value.retry) == ("SIGNATURE_USED", "new_request")


def test_a_spent_signature_is_remembered_until_its_window_has_passed_and_never_in_the_clear(
    keys: Keys, database: Database, clock: Clock
) -> None:
    made = keys.create("shop")
    request = signed(made, clock)
    keys.spend(authenticate(keys, **request), request["signature"])
    with database.read() as session:
        spent = session.scalars(select(UsedSignature)).one()
    assert request["signature"] not in spent.signature
    # Signed 5 s ahead of us it is good for 10 s, and every process may have a clock of its own.
    assert spent.expires_at - clock() > timedelta(seconds=15)


# --- until when, and from where --------------------------------------------------------------------------------------


def test_a_key_works_until_it_expires(keys: Keys, clock: Clock) -> None:
    made = keys.create("shop", options=KeyOptions(expires_at=clock() + timedelta(minutes=1)))
    authenticate(keys, **signed(made, clock))
    clock.advance(61)
    assert code_of(keys, signed(made, clock)) == "KEY_UNKNOWN"
    assert keys.live([made.key]) == set()
    assert [key["state"] for key in keys.listed()] == ["expired"]


def test_a_rotated_key_and_its_successor_work_side_by_side_for_a_while(keys: Keys, clock: Clock) -> None:
    old = keys.create("shop", client="Shop Ltd", options=KeyOptions(["quotes"], allowed_from=["10.0.0.0/8"]))
    new = keys.rotate(old.key, timedelta(hours=24), by="anna", reason="yearly")
    assert (new.client, new.name, new.scopes) == ("Shop Ltd", "shop", ("quotes",))
    for made in (old, new):
        assert authenticate(keys, **signed(made, clock)).allowed_from == ("10.0.0.0/8",)
    clock.advance(timedelta(hours=24))
    assert code_of(keys, signed(old, clock)) == "KEY_UNKNOWN"
    authenticate(keys, **signed(new, clock))
    with pytest.raises(NotFound):
        keys.rotate(old.key, timedelta(hours=1))


def test_a_rotation_lets_no_key_work_longer_than_it_would_have(keys: Keys, clock: Clock) -> None:
    old = keys.create("shop")
    keys.expire(old.key, clock() + timedelta(minutes=5))
    keys.rotate(old.key, timedelta(hours=24))
    clock.advance(timedelta(minutes=6))
    assert keys.live([old.key]) == set()


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ([], "198.51.100.7", True),
        (["203.0.113.0/24"], "203.0.113.9", True),
        (["203.0.113.0/24"], "203.0.114.9", False),
        (["203.0.113.0/24", "2001:db8::/32"], "2001:db8::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["203.0.113.9/32"], "", False),
        (["0.0.0.0/0"], "2001:db8::1", False),
    ],
)
def test_a_key_may_be_bound_to_networks(
    keys: Keys, clock: Clock, networks: list[str], address: str, allowed: bool
) -> None:
    caller = authenticate(keys, **signed(keys.create("shop", options=KeyOptions(allowed_from=networks)), clock))
    if allowed:
        keys.must_be_allowed_from(caller, address)
    else:
        with pytest.raises(NotAllowed) as caught:
            keys.must_be_allowed_from(caller, address)
        assert caught.value.code == "ADDRESS_NOT_ALLOWED"


@pytest.mark.parametrize("network", ["", "10.0.0.1/8", "10.0.0.0/33", "example.com", "10.0.0.0-10.0.0.9"])
def test_what_is_no_network_is_told_before_a_key_is_made(keys: Keys, network: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        keys.create("shop", options=KeyOptions(allowed_from=[network]))
    assert caught.value.fields["allowed_from"][0].code == "NETWORK_INVALID"
    assert keys.listed() == []


def test_keys_say_for_which_environment_they_are_and_open_no_other(database: Database, clock: Clock) -> None:
    test, live = (Keys(database, Vault([OLD]), clock, environment) for environment in ("test", "live"))
    made = test.create("shop")
    assert (made.key[:5], made.secret[:5]) == ("test_", "test_")
    assert code_of(live, signed(made, clock)) == "KEY_OF_OTHER_ENVIRONMENT"
    assert code_of(test, signed(live.create("shop"), clock)) == "KEY_OF_OTHER_ENVIRONMENT"


def test_when_and_from_where_a_key_was_used_is_written_once_a_minute(keys: Keys, clock: Clock) -> None:
    caller = authenticate(keys, **signed(keys.create("shop"), clock))
    keys.note_use(caller.key, "203.0.113.9")
    first = keys.listed()[0]
    clock.advance(30)
    keys.note_use(caller.key, "203.0.113.10")
    assert keys.listed()[0] == first
    assert first["last_used_from"] == "203.0.113.9"
    clock.advance(31)
    keys.note_use(caller.key, "203.0.113.10")
    assert keys.listed()[0]["last_used_from"] == "203.0.113.10"


def test_the_limit_is_the_clients_whatever_key_is_used(keys: Keys, database: Database, clock: Clock) -> None:
    one, two = keys.create("one", client="shop", weight_per_minute=70), keys.create("two", client="shop")
    assert [authenticate(keys, **signed(made, clock)).weight_per_minute for made in (one, two)] == [70, 70]
    Clients(database, clock).limit("shop", 90, by="anna", reason="grows")
    clock.advance(1)
    assert authenticate(keys, **signed(two, clock)).weight_per_minute == 90
    with pytest.raises(NotFound):
        Clients(database, clock).limit("nobody", 90, by="anna")


def test_every_act_is_written_down_with_who_and_why_and_no_secret(keys: Keys, database: Database, clock: Clock) -> None:
    made = keys.create("shop", by="anna", reason="a new shop")
    new = keys.rotate(made.key, timedelta(hours=1), by="bert", reason="yearly")
    keys.expire(new.key, clock() + timedelta(days=1), by="anna", reason="a trial")
    keys.revoke(new.key, by="anna", reason="leaked")
    Clients(database, clock).limit("shop", 90, by="anna", reason="grows")
    acts = Clients(database, clock).audit()
    assert sorted((act["act"], act["actor"], act["reason"]) for act in acts) == [
        ("clients.limit", "anna", "grows"),
        ("keys.create", "anna", "a new shop"),
        ("keys.expire", "anna", "a trial"),
        ("keys.revoke", "anna", "leaked"),
        ("keys.rotate", "bert", "yearly"),
    ]
    assert {act["act"] for act in Clients(database, clock).audit(subject=made.key)} == {"keys.create", "keys.rotate"}
    assert not [act for act in acts if made.secret in str(act) or new.secret in str(act)]
