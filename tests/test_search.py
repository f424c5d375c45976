"""Search terms of a client's own, and what support finds by whatever a customer tells."""

from __future__ import annotations

import pytest

from swap.wiring import Service
from tests.conftest import XRP_ADDRESS, Clock, Shop, look, new_shop
from tests.factories import make_order
from tests.signed_client import Calls

X_ADDRESS = "X7gJ5YK8abHf2eTPWPFHAAot8Knck11QGqmQ7a6a3Z8PJvk"
TERMS = ["Kim@Shop.example", "Rechnung 2026/17", "Straße 5"]


@pytest.fixture
def support(service: Service, api_url: str, clock: Clock) -> Calls:
    staff = new_shop(service, api_url, clock, "staff", scopes=["support:read"], weight_per_minute=60_000)
    return Calls(staff, api_url, clock)


def found(calls: Calls, term: str) -> list[str]:
    answer = calls("GET", "/v1/orders", f"search_term={term}")
    return [order["client_order_id"] for order in answer.data["orders"]]


# --- a client's own --------------------------------------------------------------------------------------------------


def test_an_order_is_found_by_each_of_its_terms_in_any_case_and_shows_them_as_they_were_given(calls: Calls) -> None:
    order = calls.order(search_terms=TERMS).data
    calls.order(client_order_id="order-2", search_terms=["kim@other.example"])
    assert order["search_terms"] == TERMS
    assert calls.get(f"/v1/orders/{order['id']}").data["search_terms"] == TERMS
    for term in ("kim%40shop.example", "KIM%40SHOP.EXAMPLE", "rechnung%202026%2F17", "STRASSE%205"):
        assert found(calls, term) == ["order-1"], term
    for term in ("kim", "kim%40shop", "rechnung", "%25", "kim%40shop.example%20"):
        assert found(calls, term) == [], term


def test_an_accent_is_the_same_whether_or_not_it_is_a_character_of_its_own(calls: Calls) -> None:
    calls.order(search_terms=["Zoe\u0308"])
    assert found(calls, "zo%C3%AB") == ["order-1"]


def test_terms_go_with_the_other_filters(calls: Calls) -> None:
    for number in range(3):
        calls.order(client_order_id=f"order-{number}", search_terms=["kim"], user_id=f"u{number}")
    assert sorted(found(calls, "kim")) == ["order-0", "order-1", "order-2"]
    assert found(calls, "kim&user_id=u1") == ["order-1"]
    assert found(calls, "kim&status=completed") == []


def test_no_client_finds_the_orders_of_another(service: Service, api_url: str, calls: Calls, clock: Clock) -> None:
    other = Calls(new_shop(service, api_url, clock, "other"), api_url, clock)
    calls.order(search_terms=["kim"])
    assert found(other, "kim") == []
    other.order(client_order_id="theirs", search_terms=["kim"])
    assert (found(other, "kim"), found(calls, "kim")) == (["theirs"], ["order-1"])


def test_an_order_without_terms_and_one_from_before_there_were_any_show_none(service: Service, calls: Calls) -> None:
    order = calls.order(search_terms=None).data
    assert order["search_terms"] == []
    old = make_order(service.database, calls.shop.client_id, request={"amount": "0.0125"})
    assert calls.get(f"/v1/orders/{old.id}").data["search_terms"] == []


def test_the_same_terms_find_their_order_again_and_others_are_a_conflict(calls: Calls) -> None:
    assert calls.order(search_terms=["kim", "17"]).status == 201
    assert calls.order(search_terms=["kim", "17"]).status == 200
    for other in (["17", "kim"], ["Kim", "17"], ["kim"], ...):
        answer = calls.order(search_terms=other)
        assert (answer.status, answer.details["different"]) == (409, ["search_terms"]), other
    assert found(calls, "17") == ["order-1"]


def test_events_carry_the_terms_as_the_owner_sees_them_anywhere(service: Service, calls: Calls) -> None:
    order = calls.order(search_terms=["kim"]).data
    service.feed.publish()
    told = calls.get(f"/v1/orders/{order['id']}/events").data["events"] + calls.get("/v1/events").data["events"]
    assert len(told) == 4
    assert [event["order"]["search_terms"] for event in told] == [["kim"]] * 4


# --- support ---------------------------------------------------------------------------------------------------------


def matched(support: Calls, clue: str) -> list[tuple[str, list[str]]]:
    answer = support("GET", "/v1/support/orders", f"clue={clue}").data
    assert answer["has_more"] is False
    return [(order["id"], order["matched"]) for order in answer["orders"]]


def test_support_finds_the_orders_of_all_clients_by_whatever_it_is_told(
    service: Service, support: Calls, shop: Shop, calls: Calls, clock: Clock
) -> None:
    names = {"user_id": "u1", "session_id": "s1", "account_id": "a1"}
    order = calls.order(search_terms=["Kim@shop.example"], **names).data
    clock.advance(400)
    look(service, order["id"])
    order = calls.get(f"/v1/orders/{order['id']}").data
    clues = {
        "id": order["id"],
        "client_order_id": "order-1",
        **names,
        "search_term": "KIM%40shop.example",
        "destination_memo": "1234567",
        "destination_address": XRP_ADDRESS,
        "deposit_address": order["deposit"]["address"],
        "upstream_order_id": order["upstream_order_id"],
        "tx_id": order["withdrawals"][0]["tx_id"],
    }
    for name, clue in clues.items():
        assert matched(support, clue) == [(order["id"], [name])], name
    assert matched(support, "nothing") == []
    (told,) = support("GET", "/v1/support/orders", "clue=u1").data["orders"]
    assert (told["client_id"], told["search_terms"]) == (shop.client_id, ["Kim@shop.example"])
    assert service.support.record(order["id"])["order"]["search_terms"] == ["Kim@shop.example"]


def test_support_finds_an_order_by_another_form_of_its_destination(
    service: Service, support: Calls, calls: Calls
) -> None:
    order = calls.order(destination_address=X_ADDRESS, destination_memo=...).data
    assert order["destination"]["given"] == X_ADDRESS
    assert matched(support, X_ADDRESS) == [(order["id"], ["destination_address"])]


def test_what_fits_too_many_orders_shows_some_newest_first_and_says_so(
    service: Service, support: Calls, calls: Calls, clock: Clock
) -> None:
    made = []
    for number in range(3):
        clock.advance(1)
        made.append(calls.order(client_order_id=f"order-{number}", user_id="guest", search_terms=["guest"]).data["id"])
    answer = support("GET", "/v1/support/orders", "clue=guest&limit=2").data
    assert (len(answer["orders"]), answer["has_more"]) == (2, True)
    answer = support("GET", "/v1/support/orders", "clue=guest&limit=3").data
    assert [order["id"] for order in answer["orders"]] == made[::-1]
    assert answer["orders"][0]["matched"] == ["user_id", "search_term"]


@pytest.mark.parametrize("query", ["", "clue=", "clue=%00", "clue=a&limit=0", "clue=a&limit=101", "q=a"])
def test_a_search_that_makes_no_sense_is_refused(query: str, support: Calls) -> None:
    assert support("GET", "/v1/support/orders", query).status == 422


def test_only_a_key_for_support_searches_all_clients(calls: Calls) -> None:
    answer = calls("GET", "/v1/support/orders", "clue=u1")
    assert (answer.status, answer.code, answer.details["scope"]) == (403, "SCOPE_MISSING", "support:read")
