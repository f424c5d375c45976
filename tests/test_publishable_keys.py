"""Publishable keys: made for origins, found by key and origin together, moved, limited and taken out of use."""

from __future__ import annotations

import string
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import event

from swap.access.clients import Clients
from swap.access.key_ids import must_be_of
from swap.access.keys import Keys
from swap.access.publishable import PublishableKeys
from swap.domain.signing import SignedParts, sign_request
from swap.domain.times import to_ms
from swap.errors import InvalidRequest, NotAllowed, NotAuthenticated, NotFound
from swap.infra.vault import Vault
from swap.settings.texts import origin
from swap.store.database import Database
from tests.conftest import Clock

SHOP, OTHER = "https://shop.example", "https://other.example"


@pytest.fixture
def keys(database: Database, clock: Clock) -> Keys:
    """With a client to which keys can be given."""
    keys = Keys(database, Vault(["a text for tests, of at least 32 characters"]), clock)
    keys.create("shop")
    return keys


@pytest.fixture
def publishable(keys: Keys, database: Database, clock: Clock) -> PublishableKeys:
    return PublishableKeys(database, clock, "test")


def made(publishable: PublishableKeys, *origins: str, **options: Any) -> str:
    return str(publishable.create("checkout", "shop", origins or (SHOP,), **options)["key"])


def code_of(publishable: PublishableKeys, key: str, page: str | None = SHOP) -> str:
    with pytest.raises((NotAuthenticated, NotAllowed)) as caught:
        publishable.open(key, page)
    return str(caught.value.code)


def test_a_key_opens_for_pages_of_its_origins_and_tells_whose_it_is(publishable: PublishableKeys, keys: Keys) -> None:
    key = made(publishable, SHOP, "http://localhost:3000", weight_per_minute=70)
    assert key.startswith("pk_test_")
    for page in (SHOP, "http://localhost:3000"):
        found = publishable.open(key, page)
        assert (found.key, found.weight_per_minute) == (key, 70)
    owner = keys.caller(next(row["key"] for row in keys.listed() if row["kind"] == "secret"))
    assert owner is not None and owner.client_id == found.client_id


def test_whatever_is_wrong_with_a_key_or_its_page_is_named(publishable: PublishableKeys) -> None:
    key, _ = made(publishable), made(publishable, OTHER)
    assert code_of(publishable, "pk_test_" + "0" * 24) == "KEY_UNKNOWN"
    assert code_of(publishable, "") == "KEY_UNKNOWN"
    assert code_of(publishable, "pk_live_" + "0" * 24) == "KEY_OF_OTHER_ENVIRONMENT"
    assert code_of(publishable, key, None) == "ORIGIN_NOT_ALLOWED"
    assert code_of(publishable, key, OTHER) == "ORIGIN_NOT_ALLOWED"


def test_the_two_kinds_of_keys_do_not_pass_for_each_other(
    publishable: PublishableKeys, keys: Keys, clock: Clock
) -> None:
    key, secret_key = made(publishable), keys.create("shop").key
    assert code_of(publishable, secret_key) == "KEY_UNKNOWN"
    assert keys.caller(key) is None
    stamp = str(to_ms(clock()))
    for secret in ("", "None", key):
        signature = sign_request(secret, "GET", b"/v1/orders", b"", stamp, b"")
        with pytest.raises(NotAuthenticated) as caught:
            keys.authenticate(key, signature, SignedParts("GET", b"/v1/orders", b"", stamp, b""))
        assert caught.value.code == "KEY_UNKNOWN"


def test_a_revoked_an_expired_and_a_moved_key_are_out_within_a_second_in_every_process(
    publishable: PublishableKeys, keys: Keys, database: Database, clock: Clock
) -> None:
    revoked, moved = made(publishable), made(publishable)
    expired = made(publishable, expires_at=clock() + timedelta(minutes=1))
    elsewhere = PublishableKeys(database, clock, "test")
    for key in (revoked, moved, expired):
        elsewhere.open(key, SHOP)
    assert keys.revoke(revoked, by="anna")
    publishable.move(moved, [OTHER], by="anna")
    clock.advance(1)
    assert code_of(elsewhere, revoked) == "KEY_UNKNOWN"
    assert code_of(elsewhere, moved) == "ORIGIN_NOT_ALLOWED"
    assert elsewhere.open(moved, OTHER).key == moved
    clock.advance(60)
    assert code_of(elsewhere, expired) == "KEY_UNKNOWN"
    assert not elsewhere.allows(SHOP)


def test_a_clock_set_back_does_not_keep_a_revoked_key_alive(
    publishable: PublishableKeys, keys: Keys, clock: Clock
) -> None:
    key = made(publishable)
    publishable.open(key, SHOP)
    keys.revoke(key)
    clock.advance(-3600)
    assert code_of(publishable, key) == "KEY_UNKNOWN"


def test_however_many_keys_and_origins_strangers_invent_the_database_is_asked_once_a_second(
    publishable: PublishableKeys, database: Database, clock: Clock
) -> None:
    key = made(publishable)
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda _c, _u, statement, *_: asked.append(statement))
    now = clock()
    still = PublishableKeys(database, lambda: now, "test")
    for number in range(50):
        assert not still.allows(f"https://{number}.example")
        assert code_of(still, f"pk_test_{number:024x}") == "KEY_UNKNOWN"
    still.open(key, SHOP)
    assert len([statement for statement in asked if "api_keys" in statement]) == 1


def test_what_a_process_knows_outlives_the_database(
    publishable: PublishableKeys, database: Database, clock: Clock
) -> None:
    made(publishable)
    assert not publishable.knows(SHOP), "nothing has been asked yet"
    assert publishable.allows(SHOP)

    @event.listens_for(database.engine, "before_cursor_execute")
    def away(*_: object) -> None:
        raise ConnectionError

    clock.advance(60)
    assert (publishable.knows(SHOP), publishable.knows(OTHER)) == (True, False)
    with pytest.raises(ConnectionError):
        publishable.allows(SHOP)


# --- origins ---------------------------------------------------------------------------------------------------------

NO_ORIGINS = [
    "",
    "*",
    "null",
    "shop.example",
    "//shop.example",
    "https://",
    "https://*.shop.example",
    "https://shop.example/",
    "https://shop.example/checkout",
    "https://shop.example?",
    "https://shop.example#",
    "https://Shop.example",
    "HTTPS://shop.example",
    "https://shop.example:443",
    "https://shop.example:0443",
    "https://shop.example:",
    "https://shop.example:70000",
    "https://shop.example.",
    "https://shop..example",
    "https://user@shop.example",
    "https://müller.example",
    "https://127.1",
    "https://0x7f.0.0.1",
    "https://[::0001]",
    "https://[fe80::1%25eth0]",
    "https://shop.example https://other.example",
    "https://shop.example,https://other.example",
    " https://shop.example",
    "https://shop.example\n",
    "wss://shop.example",
    "file://",
    "http://shop.example",
    "http://localhost.shop.example",
    "http://127.0.0.1.shop.example",
]


@pytest.mark.parametrize("text", NO_ORIGINS)
def test_an_origin_that_no_page_could_send_or_that_is_open_on_the_way_makes_no_key(
    text: str, publishable: PublishableKeys, keys: Keys
) -> None:
    key = made(publishable)
    for attempt in (lambda: made(publishable, SHOP, text), lambda: publishable.move(key, [text], by="anna")):
        with pytest.raises(InvalidRequest) as caught:
            attempt()
        assert caught.value.fields["origins"][0].code == "ORIGIN_INVALID"
    assert [row["origins"] for row in keys.listed() if row["kind"] == "publishable"] == [[SHOP]]


@pytest.mark.parametrize(
    "text", ["http://localhost", "http://localhost:3000", "http://127.0.0.1:8000", "http://[::1]:1"]
)
def test_this_machine_needs_no_https_in_the_test_environment_alone(
    text: str, publishable: PublishableKeys, database: Database, clock: Clock
) -> None:
    publishable.open(made(publishable, text), text)
    live = PublishableKeys(database, clock, "live")
    with pytest.raises(InvalidRequest):
        made(live, text)
    assert made(live).startswith("pk_live_")


LABELS = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=8)
ORIGINS = st.builds(
    lambda labels, port: f"https://{'.'.join(labels)}{'' if port is None else f':{port}'}",
    st.lists(LABELS, min_size=1, max_size=4),
    st.none() | st.integers(1, 65535),
)


def is_origin(text: str) -> bool:
    try:
        return origin(text) == text
    except ValueError:
        return False


CHANGES = [
    lambda text, noise: text + "/" + noise,
    lambda text, noise: text + "." + (noise or "x"),
    lambda text, noise: text + (noise or "0"),
    lambda text, noise: text.replace("https://", f"https://{noise or 'x'}.", 1),
    lambda text, noise: text.replace("https://", f"https://{noise or 'x'}@", 1),
    lambda text, _noise: text.replace("https://", "http://", 1),
    lambda text, _noise: text.upper(),
    lambda text, _noise: text.title(),
    lambda text, _noise: text + ":443",
    lambda text, _noise: text[:-1],
    lambda text, noise: text + ", " + noise,
    lambda text, _noise: f" {text}",
    lambda _text, _noise: "null",
    lambda _text, noise: noise,
]


def test_only_the_very_origin_opens_a_key_and_whatever_comes_near_it_does_not(
    publishable: PublishableKeys, clock: Clock
) -> None:
    key = made(publishable)

    @given(ORIGINS.filter(is_origin), st.sampled_from(CHANGES), st.text(string.printable, max_size=12))
    @example("https://shop.example", CHANGES[1], "evil.example")
    def proved(text: str, change: Any, noise: str) -> None:
        publishable.move(key, [text], by="anna")
        clock.advance(1)
        assert publishable.open(key, text).key == key
        changed = change(text, noise)
        if changed != text:
            assert code_of(publishable, key, changed) == "ORIGIN_NOT_ALLOWED"
        assert (publishable.allows(text), publishable.allows(changed)) == (True, changed == text)

    proved()


@given(st.text("abcXYZ019-_.:/%[]@?#*\\ ü٣ſ\n", max_size=12))
def test_an_origin_that_is_taken_is_written_in_the_one_way_there_is(text: str) -> None:
    if is_origin(f"https://{text}"):
        assert text == text.lower() and text.isascii()
        assert not set(text) & set("/?#@\\%* \n")
        assert not text.endswith((":", ".", ":443"))


# --- what operators do -----------------------------------------------------------------------------------------------


def test_a_key_of_nobody_or_without_a_name_or_a_limit_is_not_made(publishable: PublishableKeys, keys: Keys) -> None:
    with pytest.raises(NotFound) as nobody:
        publishable.create("checkout", "shap", [SHOP])
    assert nobody.value.code == "CLIENT_UNKNOWN"
    for wrong, field in (
        ({"name": " "}, "name"),
        ({"origins": []}, "origins"),
        ({"weight_per_minute": 0}, "weight_per_minute"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            publishable.create(**{"name": "checkout", "client": "shop", "origins": [SHOP], **wrong})  # type: ignore[arg-type]
        assert set(caught.value.fields) == {field}
    assert [row["kind"] for row in keys.listed()] == ["secret"]


def test_keys_of_both_kinds_are_listed_with_what_they_may(publishable: PublishableKeys, keys: Keys) -> None:
    key = made(publishable, SHOP, OTHER, SHOP, weight_per_minute=70)
    keys.note_use(key, SHOP)
    by_kind = {row["kind"]: row for row in keys.listed()}
    row = by_kind["publishable"]
    assert (row["key"], row["client"], row["state"], row["origins"]) == (key, "shop", "live", [SHOP, OTHER])
    assert (row["weight_per_minute"], row["last_used_from"]) == (70, SHOP)
    assert (by_kind["secret"]["origins"], by_kind["secret"]["weight_per_minute"]) == ([], None)


def test_whatever_is_done_to_a_key_is_written_down_with_who_and_why(
    publishable: PublishableKeys, keys: Keys, database: Database, clock: Clock
) -> None:
    key = made(publishable, by="anna", reason="the new checkout")
    publishable.move(key, [OTHER], by="bert", reason="moved")
    publishable.limit(key, 70, by="anna", reason="small")
    clock.advance(1)
    assert publishable.open(key, OTHER).weight_per_minute == 70
    keys.expire(key, clock() + timedelta(days=1), by="anna")
    keys.revoke(key, by="anna", reason="over")
    told = [(act["act"], act["actor"], act["reason"]) for act in Clients(database, clock).audit(subject=key)]
    assert sorted(told, key=str) == [
        ("keys.create", "anna", "the new checkout"),
        ("keys.expire", "anna", None),
        ("keys.limit", "anna", "small"),
        ("keys.origins", "bert", "moved"),
        ("keys.revoke", "anna", "over"),
    ]
    details = {act["act"]: act["detail"] for act in Clients(database, clock).audit(subject=key)}
    assert details["keys.origins"] == {"origins": [OTHER], "before": [SHOP]}
    assert details["keys.limit"] == {"weight_per_minute": 70, "before": 6000}


def test_a_key_that_is_none_or_has_a_secret_is_not_moved_and_one_without_is_not_rotated(
    publishable: PublishableKeys, keys: Keys
) -> None:
    for key in ("pk_test_none", keys.create("shop").key):
        with pytest.raises(NotFound):
            publishable.move(key, [SHOP], by="anna")
        with pytest.raises(NotFound):
            publishable.limit(key, 5, by="anna")
    with pytest.raises(InvalidRequest) as caught:
        keys.rotate(made(publishable), timedelta(hours=1))
    assert caught.value.fields["key"][0].code == "KEY_PUBLISHABLE"


def test_a_key_says_for_which_environment_it_was_made() -> None:
    must_be_of("test", "pk_test_1")
    must_be_of("live", "pk_live_1")
    for environment, key in (("test", "pk_live_1"), ("live", "pk_test_1"), ("live", "test_swk_1")):
        with pytest.raises(NotAuthenticated):
            must_be_of(environment, key)  # type: ignore[arg-type]
