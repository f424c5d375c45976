"""Endpoints and deliveries as clients manage them, over HTTP: what is shown, changed, rotated, tested and sent again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from swap.domain.times import iso
from swap.errors import Conflict
from swap.push.delivering import KEPT
from swap.push.endpoints import MAX_ENDPOINTS
from swap.sdk import SwapApiError
from swap.store import endpoints as endpoint_rows
from swap.tables import WebhookDelivery, WebhookEndpoint
from swap.wiring import Service
from tests.conftest import Clock, Shop, new_shop
from tests.factories import make_orders, move, read_order
from tests.receivers import Receiver
from tests.signed_client import Calls
from tests.threads import errors_of


def code_of(work: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(SwapApiError) as caught:
        work()
    return caught.value.status, caught.value.code


def deliver(service: Service) -> int:
    service.feed.publish()
    return service.deliverer.deliver_due()


def move_to(service: Service, order_id: str, status: str) -> None:
    move(service.database, read_order(service.database, order_id), status=status)


def add_trusted(shop: Shop, service: Service, url: str, types: Sequence[str] = ()) -> dict[str, Any]:
    """An endpoint that gets events at once."""
    return service.endpoints.create(shop.client_id, url, types, trusted=True, by="shop")


# --- endpoints -------------------------------------------------------------------------------------------------------


def test_an_endpoint_is_made_listed_changed_and_deleted(shop: Shop, service: Service) -> None:
    made = shop.api.add_webhook_endpoint("https://hooks.example/a", ["order.completed", "order.completed"], "the shop")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made == {
        "id": made["id"],
        "url": "https://hooks.example/a",
        "new_url": None,
        "verified_at": None,
        "types": ["order.completed"],
        "description": "the shop",
        "enabled": True,
        "disabled_at": None,
        "disabled_reason": None,
        "failing_since": None,
        "old_secret_until": None,
        "created_at": made["created_at"],
    }
    assert shop.api.webhook_endpoints() == [made]
    changes: dict[str, Any] = {"url": "https://hooks.example/b", "types": [], "description": None}
    changed = shop.api.change_webhook_endpoint(made["id"], **changes)
    assert changed == {**made, **changes}
    shop.api.delete_webhook_endpoint(made["id"])
    assert shop.api.webhook_endpoints() == []
    with service.database.read() as session:
        row = session.scalars(select(WebhookEndpoint)).one()
    assert (row.secret_sealed, row.enabled) == ("", False)
    assert secret.removeprefix("whsec_") not in str(vars(row))


def test_an_endpoint_of_another_client_or_one_that_was_deleted_is_not_found(
    shop: Shop, service: Service, api_url: str, clock: Clock
) -> None:
    other = new_shop(service, api_url, clock, "another")
    theirs = other.api.add_webhook_endpoint("https://hooks.example")["id"]
    gone = shop.api.add_webhook_endpoint("https://hooks.example")["id"]
    shop.api.delete_webhook_endpoint(gone)
    for endpoint_id in (theirs, gone, "whe_none"):
        calls: list[Callable[[str], Any]] = [
            lambda each: shop.api._call("GET", f"/v1/webhook-endpoints/{each}"),
            lambda each: shop.api.change_webhook_endpoint(each, enabled=False),
            shop.api.delete_webhook_endpoint,
            shop.api.rotate_webhook_secret,
            shop.api.test_webhook_endpoint,
            lambda each: shop.api.redeliver_all(each, "2026-01-01T00:00:00Z"),
        ]
        for call in calls:
            assert code_of(partial(call, endpoint_id)) == (404, "ENDPOINT_NOT_FOUND")
    assert other.api.webhook_endpoints()[0]["enabled"] is True


def challenges_of(service: Service, endpoint_id: str) -> list[WebhookDelivery]:
    with service.database.read() as session:
        query = select(WebhookDelivery).filter_by(endpoint_id=endpoint_id, type="endpoint.verify")
        return list(session.scalars(query.order_by(WebhookDelivery.created_at, WebhookDelivery.id)))


def read_endpoint(shop: Shop, endpoint_id: str) -> dict[str, Any]:
    return shop.api._call("GET", f"/v1/webhook-endpoints/{endpoint_id}")


def test_a_stranger_whose_url_was_registered_gets_a_challenge_and_no_event(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    receiver.willing = False
    made = shop.api.add_webhook_endpoint(receiver.url)
    move_to(service, make_orders(service.database, 1, shop.client_id)[0], "completed")
    deliver(service)
    deliver(service)
    (request,) = receiver.got
    assert json.loads(request.body)["type"] == "endpoint.verify"
    assert read_endpoint(shop, made["id"])["verified_at"] is None
    (challenge,) = challenges_of(service, made["id"])
    assert (challenge.status, challenge.error, challenge.response_status) == ("pending", "TokenMissing", 204)
    unproved = (409, "ENDPOINT_UNVERIFIED")
    assert code_of(lambda: shop.api.test_webhook_endpoint(made["id"])) == unproved
    assert code_of(lambda: shop.api.redeliver_all(made["id"], "2026-01-01T00:00:00Z")) == unproved


def test_a_receiver_that_answers_with_the_token_gets_the_events_from_then_on(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    made = shop.api.add_webhook_endpoint(receiver.url)
    deliver(service)
    assert read_endpoint(shop, made["id"])["verified_at"] is not None
    move_to(service, make_orders(service.database, 1, shop.client_id)[0], "completed")
    deliver(service)
    assert "order.completed" in [json.loads(request.body)["type"] for request in receiver.got]
    assert code_of(lambda: shop.api.verify_webhook_endpoint(made["id"])) == (409, "ENDPOINT_VERIFIED")


def test_a_challenge_is_signed_as_every_webhook_is(shop: Shop, service: Service, receiver: Receiver) -> None:
    receiver.willing = False
    made = shop.api.add_webhook_endpoint(receiver.url)
    deliver(service)
    (request,) = receiver.got
    message = Webhook(made["secret"]).verify(request.body, request.headers)
    assert (message["data"]["url"], message["data"]["endpoint_id"]) == (receiver.url, made["id"])


@pytest.mark.parametrize(
    "answer", ["echo", "other token", "nested", "a list", "a number", "half a character", "nothing"]
)
def test_an_answer_without_the_token_in_its_place_proves_nothing(
    shop: Shop, service: Service, receiver: Receiver, answer: str
) -> None:
    receiver.willing = False
    made = shop.api.add_webhook_endpoint(receiver.url)
    (challenge,) = challenges_of(service, made["id"])
    assert challenge.message is not None
    token = challenge.message["token"]
    bodies: dict[str, Any] = {
        "echo": {"type": challenge.type, "data": challenge.message},
        "other token": {"token": token[:-1]},
        "nested": {"data": {"token": token}},
        "a list": [token],
        "a number": {"token": 1},
        "half a character": {"token": "\ud800"},
    }
    receiver.body = json.dumps(bodies[answer]).encode() if answer in bodies else b""
    receiver.answers = {"/": 200}
    deliver(service)
    assert len(receiver.got) == 1
    assert read_endpoint(shop, made["id"])["verified_at"] is None
    (challenge,) = challenges_of(service, made["id"])
    assert (challenge.error, challenge.attempts) == ("TokenMissing", 1)


def test_a_receiver_that_learns_its_secret_later_is_asked_again_at_once_or_by_itself(
    shop: Shop, service: Service, receiver: Receiver, clock: Clock
) -> None:
    receiver.willing = False
    by_call, by_itself = (shop.api.add_webhook_endpoint(f"{receiver.url}/{each}") for each in "ab")
    deliver(service)
    receiver.willing = True
    assert shop.api.verify_webhook_endpoint(by_call["id"])["type"] == "endpoint.verify"
    deliver(service)
    assert read_endpoint(shop, by_call["id"])["verified_at"] is not None
    assert read_endpoint(shop, by_itself["id"])["verified_at"] is None
    clock.advance(timedelta(seconds=10))
    deliver(service)
    assert read_endpoint(shop, by_itself["id"])["verified_at"] is not None
    assert [len(challenges_of(service, each["id"])) for each in (by_call, by_itself)] == [1, 1]


def test_events_go_to_the_old_url_until_the_new_one_is_proved(shop: Shop, service: Service, receiver: Receiver) -> None:
    made = add_trusted(shop, service, f"{receiver.url}/old")
    (order_id,) = make_orders(service.database, 1, shop.client_id)
    receiver.willing = False
    changed = shop.api.change_webhook_endpoint(made["id"], url=f"{receiver.url}/new")
    assert (changed["url"], changed["new_url"]) == (f"{receiver.url}/old", f"{receiver.url}/new")
    move_to(service, order_id, "confirming")
    deliver(service)
    assert "order.confirming" in [json.loads(request.body)["type"] for request in receiver.on("/old")]
    assert [json.loads(request.body)["type"] for request in receiver.on("/new")] == ["endpoint.verify"]
    receiver.willing = True
    shop.api.verify_webhook_endpoint(made["id"])
    deliver(service)
    now = read_endpoint(shop, made["id"])
    assert (now["url"], now["new_url"]) == (f"{receiver.url}/new", None)
    move_to(service, order_id, "completed")
    deliver(service)
    assert [json.loads(request.body)["type"] for request in receiver.on("/new")][-1] == "order.completed"


def test_a_proof_of_a_url_that_the_client_no_longer_wants_moves_no_events_there(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    made = add_trusted(shop, service, f"{receiver.url}/old")
    shop.api.change_webhook_endpoint(made["id"], url=f"{receiver.url}/second")
    shop.api.change_webhook_endpoint(made["id"], url=f"{receiver.url}/third")
    with service.database.write() as session:
        assert not endpoint_rows.record_proof(session, made["id"], f"{receiver.url}/second", service.clock())
    deliver(service)
    assert read_endpoint(shop, made["id"])["url"] == f"{receiver.url}/third"
    shop.api.change_webhook_endpoint(made["id"], url=f"{receiver.url}/fourth")
    shop.api.change_webhook_endpoint(made["id"], url=f"{receiver.url}/third")
    deliver(service)
    now = read_endpoint(shop, made["id"])
    assert (now["url"], now["new_url"]) == (f"{receiver.url}/third", None)


def test_a_disabled_endpoint_that_is_given_another_url_gets_nothing_until_that_is_proved(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    made = add_trusted(shop, service, f"{receiver.url}/old")
    (order_id,) = make_orders(service.database, 1, shop.client_id)
    deliver(service)
    shop.api.change_webhook_endpoint(made["id"], enabled=False)
    receiver.willing = False
    changed = shop.api.change_webhook_endpoint(made["id"], url=f"{receiver.url}/new", enabled=True)
    assert (changed["url"], changed["verified_at"]) == (f"{receiver.url}/new", None)
    move_to(service, order_id, "completed")
    deliver(service)
    assert [json.loads(request.body)["type"] for request in receiver.on("/new")] == ["endpoint.verify"]


def test_a_challenge_that_fails_says_nothing_of_the_endpoint_that_works(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    made = add_trusted(shop, service, f"{receiver.url}/old")
    receiver.willing = False
    for status in (410, 429, 500):
        receiver.answers = {f"/{status}": status}
        shop.api.change_webhook_endpoint(made["id"], url=f"{receiver.url}/{status}")
        deliver(service)
        now = read_endpoint(shop, made["id"])
        assert (now["enabled"], now["failing_since"]) == (True, None)
    move_to(service, make_orders(service.database, 1, shop.client_id)[0], "completed")
    deliver(service)
    assert receiver.on("/old")


def test_who_registered_changed_and_deleted_an_endpoint_is_written_down(shop: Shop, service: Service) -> None:
    made = shop.api.add_webhook_endpoint("https://hooks.example.com/a")
    shop.api.change_webhook_endpoint(made["id"], url="https://hooks.example.com/b")
    shop.api.rotate_webhook_secret(made["id"])
    shop.api.delete_webhook_endpoint(made["id"])
    acts = [(each["act"], each["actor"]) for each in service.clients.audit(subject=made["id"])]
    names = ("webhooks.delete", "webhooks.rotate_secret", "webhooks.url", "webhooks.add")
    assert acts == [(name, shop.key) for name in names]


def test_every_problem_of_a_request_is_named_and_nothing_is_changed(shop: Shop, calls: Calls) -> None:
    made = shop.api.add_webhook_endpoint("https://hooks.example")
    path = f"/v1/webhook-endpoints/{made['id']}"
    create = "/v1/webhook-endpoints"
    redeliver = "/v1/webhook-deliveries/redeliver"
    cases: list[tuple[str, str, Any, set[str]]] = [
        ("POST", create, {}, {"url"}),
        ("POST", create, {"url": "ftp://x", "types": ["order.none"]}, {"url", "types"}),
        ("POST", create, {"url": "https://h.example", "secret": "mine"}, {"secret"}),
        ("POST", create, {"url": "https://h.example/" + "x" * 2048, "description": "x" * 201}, {"url", "description"}),
        ("POST", create, {"url": 7, "types": "order.created"}, {"url", "types"}),
        ("PATCH", path, {"url": None, "enabled": None, "types": None}, {"url", "enabled", "types"}),
        ("PATCH", path, {"enabled": "false"}, {"enabled"}),
        ("PATCH", path, {"description": "the\u202eshop"}, {"description"}),
        ("PATCH", path, {"url": "https://u:p@h.example"}, {"url"}),
        ("POST", f"{path}/rotate-secret", {"overlap_seconds": -1}, {"overlap_seconds"}),
        ("POST", f"{path}/rotate-secret", {"overlap_seconds": 604_801}, {"overlap_seconds"}),
        ("POST", redeliver, {}, {"endpoint", "since"}),
        ("POST", redeliver, {"endpoint": made["id"], "since": "2026-01-01"}, {"since"}),
        ("POST", redeliver, {"endpoint": made["id"], "since": "0001-01-01T00:00:00+14:00"}, {"since"}),
        (
            "POST",
            redeliver,
            {"endpoint": "x", "since": "2026-01-01T00:00:00Z", "statuses": ["delivered"]},
            {"statuses"},
        ),
    ]
    for method, target, body, names in cases:
        answer = calls(method, target, body=json.dumps(body).encode())
        assert answer.status == 422, (target, body)
        assert {name.partition(".")[0] for name in answer.fields} == names, (target, body)
    for query in ("status=gone", "since=yesterday", "limit=0", "after=whd_none", "endpoint_id=x"):
        assert calls("GET", "/v1/webhook-deliveries", query).status == 422, query
    assert shop.api.webhook_endpoints() == [{k: v for k, v in made.items() if k != "secret"}]


def test_a_client_may_have_so_many_endpoints(shop: Shop) -> None:
    for _ in range(MAX_ENDPOINTS):
        last = shop.api.add_webhook_endpoint("https://hooks.example")
    full = (409, "TOO_MANY_ENDPOINTS")
    assert code_of(lambda: shop.api.add_webhook_endpoint("https://hooks.example")) == full
    shop.api.delete_webhook_endpoint(last["id"])
    shop.api.add_webhook_endpoint("https://hooks.example")


def test_endpoints_that_are_added_at_the_same_moment_are_no_more_than_a_client_may_have(
    shop: Shop, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(MAX_ENDPOINTS - 1):
        shop.api.add_webhook_endpoint("https://hooks.example")
    add = endpoint_rows.add_endpoint

    def slowly(*arguments: Any, **columns: Any) -> WebhookEndpoint:
        time.sleep(0.2)  # the others count meanwhile
        return add(*arguments, **columns)

    monkeypatch.setattr(endpoint_rows, "add_endpoint", slowly)
    refused = errors_of(4, lambda _: service.endpoints.create(shop.client_id, "https://hooks.example", by="shop"))
    assert {type(error) for error in refused} == {Conflict}
    assert len(shop.api.webhook_endpoints()) == MAX_ENDPOINTS


def test_a_key_without_the_scope_has_no_way_to_webhooks(service: Service, api_url: str, clock: Clock) -> None:
    other = new_shop(service, api_url, clock, "narrow", scopes=["orders"])
    for work in (other.api.webhook_endpoints, lambda: list(other.api.webhook_deliveries())):
        assert code_of(work) == (403, "SCOPE_MISSING")


# --- secrets ---------------------------------------------------------------------------------------------------------


def verifies(secret: str, receiver: Receiver) -> bool:
    request = receiver.got[-1]
    try:
        Webhook(secret).verify(request.body, request.headers)
    except WebhookVerificationError:
        return False
    return True


def test_during_a_rotation_both_secrets_verify_and_afterwards_the_new_one_alone(
    shop: Shop, service: Service, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add_trusted(shop, service, receiver.url)
    rotated = shop.api.rotate_webhook_secret(made["id"], 3600)
    old, new = made["secret"], rotated["secret"]
    assert old != new
    assert rotated["old_secret_until"] > iso(clock())
    shop.api.test_webhook_endpoint(made["id"])
    deliver(service)
    assert receiver.got[-1].headers["webhook-signature"].count("v1,") == 2
    assert len(receiver.got[-1].headers["webhook-signature"].split(" ")) == 2
    assert (verifies(old, receiver), verifies(new, receiver)) == (True, True)

    clock.advance(3601)
    shop.api.test_webhook_endpoint(made["id"])
    deliver(service)
    # The receiver's library goes by the real time, which the test's clock has left.
    monkeypatch.setattr(
        "standardwebhooks.webhooks.Webhook._Webhook__verify_timestamp",
        lambda _self, stamp: datetime.fromtimestamp(int(stamp), UTC),
    )
    assert (verifies(old, receiver), verifies(new, receiver)) == (False, True)
    assert shop.api.webhook_endpoints()[0]["old_secret_until"] is None


def test_a_secret_rotated_away_is_kept_no_longer_than_it_signs(shop: Shop, service: Service, clock: Clock) -> None:
    made = shop.api.add_webhook_endpoint("https://hooks.example")

    def row() -> WebhookEndpoint:
        with service.database.read() as session:
            return session.scalars(select(WebhookEndpoint)).one()

    shop.api.rotate_webhook_secret(made["id"], 0)
    assert (row().old_secret_sealed, row().old_secret_until) == (None, None)
    first = row().secret_sealed
    shop.api._call("POST", f"/v1/webhook-endpoints/{made['id']}/rotate-secret")  # a day, unless told otherwise
    assert row().old_secret_sealed == first
    shop.api.rotate_webhook_secret(made["id"])
    assert row().old_secret_sealed not in (None, first), "the one before the last no longer signs"

    clock.advance(timedelta(hours=25))
    service.housekeeping.clean_due()
    assert row().old_secret_sealed is None


# --- testing, pausing ------------------------------------------------------------------------------------------------


def test_a_test_is_sent_once_whatever_the_types_and_its_delivery_tells_the_end(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    made = add_trusted(shop, service, receiver.url, ["order.completed"])
    for status, end in ((204, "delivered"), (500, "failed")):
        receiver.answers["/"] = status
        begun = shop.api.test_webhook_endpoint(made["id"])
        assert (begun["type"], begun["status"], begun["event_id"]) == ("endpoint.test", "pending", None)
        assert shop.api.test_webhook_endpoint(made["id"])["id"] == begun["id"], "one at a time"
        assert deliver(service) == 1
        found = shop.api.webhook_delivery(begun["id"])
        assert (found["status"], found["response_status"], found["attempts"]) == (end, status, 1)
        request = receiver.got[-1]
        assert request.headers["webhook-id"] == begun["id"]
        body = json.loads(request.body)
        assert (body["type"], body["data"]["endpoint_id"]) == ("endpoint.test", made["id"])
        assert verifies(made["secret"], receiver)
    assert deliver(service) == 0


def test_while_disabled_nothing_is_sent_and_afterwards_it_begins_with_the_next_event(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    made = add_trusted(shop, service, receiver.url)
    (order_id,) = make_orders(service.database, 1, shop.client_id)
    service.feed.publish()
    disabled = shop.api.change_webhook_endpoint(made["id"], enabled=False)
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "by_client")
    assert disabled["disabled_at"] is not None
    assert shop.api.change_webhook_endpoint(made["id"], enabled=False) == disabled
    move(service.database, read_order(service.database, order_id), status="confirming")
    assert deliver(service) == 0
    (skipped,) = shop.api.webhook_deliveries(status="skipped")
    assert skipped["sequence"] == 1
    refused = (409, "ENDPOINT_DISABLED")
    assert code_of(lambda: shop.api.test_webhook_endpoint(made["id"])) == refused
    assert code_of(lambda: shop.api.redeliver(skipped["id"])) == refused
    assert code_of(lambda: shop.api.redeliver_all(made["id"], "2026-01-01T00:00:00Z")) == refused

    enabled = shop.api.change_webhook_endpoint(made["id"], enabled=True)
    assert (enabled["enabled"], enabled["disabled_reason"], enabled["disabled_at"]) == (True, None, None)
    move(service.database, read_order(service.database, order_id), status="completed")
    deliver(service)
    assert [json.loads(r.body)["data"]["sequence"] for r in receiver.got] == [3], "the gap shows"
    assert [e["sequence"] for e in shop.api.events()["events"]] == [1, 2, 3], "the feed has it"
    assert shop.api.redeliver_all(made["id"], "2026-01-01T00:00:00Z", ["skipped"]) == 1
    deliver(service)
    assert [json.loads(r.body)["data"]["sequence"] for r in receiver.got] == [3, 1]


def test_a_result_that_comes_after_the_endpoint_was_disabled_is_kept_if_it_is_a_good_one(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    ends = {}
    for status in (204, 500):
        made = add_trusted(shop, service, f"{receiver.url}/{status}")

        def answer(status: int = status, endpoint_id: str = made["id"]) -> int:
            service.endpoints.change(shop.client_id, endpoint_id, {"enabled": False}, by="shop")
            return status

        receiver.answers[f"/{status}"] = answer
        make_orders(service.database, 1, shop.client_id)
        deliver(service)
        (found,) = shop.api.webhook_deliveries(endpoint=made["id"])
        ends[status] = found["status"]
    assert ends == {204: "delivered", 500: "skipped"}


# --- deliveries ------------------------------------------------------------------------------------------------------


def test_deliveries_are_listed_newest_first_by_filters_and_pages(
    shop: Shop, service: Service, receiver: Receiver, clock: Clock, api_url: str
) -> None:
    good = add_trusted(shop, service, receiver.url)["id"]
    bad = add_trusted(shop, service, f"{receiver.url}/bad")["id"]
    receiver.answers["/bad"] = 500
    early = make_orders(service.database, 2, shop.client_id)
    deliver(service)
    clock.advance(1)
    between = iso(clock())
    late = make_orders(service.database, 2, shop.client_id)
    deliver(service)
    listed = list(shop.api.webhook_deliveries())
    assert len(listed) == 8
    assert [d["created_at"] for d in listed] == sorted((d["created_at"] for d in listed), reverse=True)
    assert list(shop.api.webhook_deliveries(limit="3")) == listed
    assert {d["order_id"] for d in shop.api.webhook_deliveries(since=between)} == set(late)
    assert {d["endpoint_id"] for d in shop.api.webhook_deliveries(status="pending")} == {bad}
    (one,) = shop.api.webhook_deliveries(endpoint=good, order_id=early[0])
    assert one == shop.api.webhook_delivery(one["id"])
    assert (one["type"], one["status"], one["attempts"], one["response_status"]) == (
        "order.created",
        "delivered",
        1,
        204,
    )
    assert one["duration_ms"] >= 0
    other = new_shop(service, api_url, clock, "another")
    assert list(other.api.webhook_deliveries()) == []
    for work in (other.api.webhook_delivery, other.api.redeliver):
        assert code_of(partial(work, one["id"])) == (404, "DELIVERY_NOT_FOUND")


def test_one_delivery_is_sent_again_with_the_same_id_whatever_became_of_it(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    add_trusted(shop, service, receiver.url)
    make_orders(service.database, 1, shop.client_id)
    deliver(service)
    (found,) = shop.api.webhook_deliveries()
    again = shop.api.redeliver(found["id"])
    assert (again["status"], again["attempts"]) == ("pending", 1)
    receiver.answers["/"] = 500
    deliver(service)
    waiting = shop.api.webhook_delivery(found["id"])
    assert (waiting["status"], waiting["attempts"]) == ("pending", 2)
    receiver.answers.clear()
    assert deliver(service) == 0, "it waits for its next attempt"
    shop.api.redeliver(found["id"])
    assert deliver(service) == 1
    assert shop.api.webhook_delivery(found["id"])["attempts"] == 3
    assert len({r.headers["webhook-id"] for r in receiver.got}) == 1
    assert len({r.body for r in receiver.got}) == 1


def test_what_waits_behind_a_delivery_that_is_sent_again_follows_at_once(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    add_trusted(shop, service, receiver.url)
    receiver.answers["/"] = 500
    (order_id,) = make_orders(service.database, 1, shop.client_id)
    move(service.database, read_order(service.database, order_id), status="confirming")
    deliver(service)
    receiver.answers.clear()
    (first,) = [d for d in shop.api.webhook_deliveries() if d["sequence"] == 1]
    shop.api.redeliver(first["id"])
    assert deliver(service) == 2
    assert [json.loads(r.body)["data"]["sequence"] for r in receiver.got] == [1, 1, 2]


def test_all_that_failed_since_a_time_is_sent_again_in_order(
    shop: Shop, service: Service, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add_trusted(shop, service, receiver.url)
    receiver.answers["/"] = 500
    make_orders(service.database, 1, shop.client_id)
    deliver(service)
    clock.advance(1)
    since = iso(clock())
    ids = make_orders(service.database, 3, shop.client_id)
    for order_id in ids:
        move(service.database, read_order(service.database, order_id), status="confirming")
    deliver(service)
    with service.database.write() as session:
        session.execute(update(WebhookDelivery).values(status="failed", next_attempt_at=None))
    receiver.answers.clear()
    receiver.got.clear()
    monkeypatch.setattr("swap.push.endpoints.SENT_AGAIN_AT_ONCE", 4)
    assert shop.api.redeliver_all(made["id"], since) == 6, "four, and then two"
    assert deliver(service) == 6
    for order_id in ids:
        got = [json.loads(r.body)["data"] for r in receiver.got]
        assert [d["sequence"] for d in got if d["order_id"] == order_id] == [1, 2]
    assert [d["status"] for d in shop.api.webhook_deliveries(status="failed")] == ["failed"], "the one before"


def test_what_waits_for_a_later_attempt_can_be_sent_at_once_after_an_outage(
    shop: Shop, service: Service, receiver: Receiver
) -> None:
    made = add_trusted(shop, service, receiver.url)
    receiver.answers["/"] = 500
    make_orders(service.database, 3, shop.client_id)
    deliver(service)
    receiver.answers.clear()
    assert shop.api.redeliver_all(made["id"], "2026-01-01T00:00:00Z", ["failed", "pending"]) == 3
    assert deliver(service) == 3


def test_settled_deliveries_are_forgotten_after_their_time_and_waiting_ones_never(
    shop: Shop, service: Service, receiver: Receiver, clock: Clock
) -> None:
    add_trusted(shop, service, receiver.url)
    add_trusted(shop, service, f"{receiver.url}/bad")
    receiver.answers["/bad"] = 500
    make_orders(service.database, 1, shop.client_id)
    deliver(service)
    clock.advance(KEPT - timedelta(minutes=1))
    service.housekeeping.clean_due()
    assert len(list(shop.api.webhook_deliveries())) == 2
    clock.advance(timedelta(minutes=11))
    service.housekeeping.clean_due()
    assert [d["status"] for d in shop.api.webhook_deliveries()] == ["pending"]
