"""The routes of the v2 upstream (docs/upstream.md section 3, E1 to E8) over one `World`.

Only the routes are here: which endpoints are signed, what they need, which refusal is answered.
E9 to E11 have no known shape and are left out, so they answer 404.
"""

from __future__ import annotations

from email.utils import formatdate
from typing import Any, Literal

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from swap.sandbox import answers, bending, faults, reading, signature
from swap.sandbox.catalog import Instrument, Pair
from swap.sandbox.chaos import Turn
from swap.sandbox.control import add_control_routes
from swap.sandbox.misbehaviour import Misbehaviour, turn_of
from swap.sandbox.rates import rate_json
from swap.sandbox.refusals import Refusal, field_refused, order_expired, refused
from swap.sandbox.timeline import Order, Snapshot
from swap.sandbox.wire import dump
from swap.sandbox.world import OrderRequest, World

PAIRS_PAGE = 500


def create_app(world: World) -> Flask:
    """One WSGI application. What `world.chaos` decides is played around it, and inside the answers about orders."""
    app = Flask("swap.sandbox", static_folder=None)
    app.wsgi_app = Misbehaviour(app.wsgi_app, world)  # type: ignore[method-assign]
    _add_frame(app, world)
    _add_catalog_routes(app, world)
    _add_rate_routes(app, world)
    _add_order_routes(app, world)
    add_control_routes(app, world)
    return app


def _add_frame(app: Flask, world: World) -> None:
    """Errors in the upstream's shapes, and the world's time in the Date header."""

    @app.errorhandler(Refusal)
    def _refusal(refusal: Refusal) -> Response:
        return _json(refusal.body, refusal.status)

    @app.errorhandler(HTTPException)
    def _http_error(error: HTTPException) -> Response:
        status = 404 if error.code == 405 else error.code or 500
        message = f"Cannot {request.method} {request.path}" if status == 404 else error.name
        return _json({"message": message}, status)

    @app.after_request
    def _dated(response: Response) -> Response:
        response.headers["Date"] = formatdate(world.now(), usegmt=True)
        return response


def _add_catalog_routes(app: Flask, world: World) -> None:
    catalog = world.catalog
    instruments = dump([answers.instrument_json(instrument) for instrument in catalog.instruments])

    @app.get("/api/v1/instruments/public")
    @app.get("/api/v2/instruments/public")
    def _instruments() -> Response:
        return Response(instruments, mimetype="application/json")

    @app.post("/api/v2/instruments/public/one")
    def _instrument() -> Response:
        _require_signature(world)
        return _json(answers.instrument_json(_instrument_of(world, reading.json_body())), 201)

    @app.post("/api/v1/instruments/public/validate-address")
    def _validate_v1() -> Response:
        return _json(_address_problem(world, reading.json_body()) is None, 201)

    @app.post("/api/v2/instruments/public/validate-address")
    def _validate_v2() -> Response:
        _require_signature(world)
        problem = _address_problem(world, reading.json_body())
        if problem:
            raise field_refused(*problem)
        return _json({"result": True}, 201)

    @app.post("/api/v2/instruments/validate-address")
    def _validate_v2_private() -> Response:
        _require_signature(world)
        problem = _address_problem(world, reading.json_body())
        return _json({"valid": problem is None, "message": problem[1] if problem else "Address is valid"}, 201)

    @app.get("/api/v2/pairs/public")
    def _pairs() -> Response:
        rows: tuple[Pair, ...] | list[Pair] = catalog.pairs
        currency = request.args.get("instrumentFromCurrencyTitle")
        network = request.args.get("instrumentFromNetworkTitle")
        if currency and network:
            rows = [pair for pair in rows if pair.source.key == (currency, network)]
        start, count = reading.page_number("offset", 0), reading.page_number("limit", PAIRS_PAGE)
        page = enumerate(rows[start : start + count], start)
        return _json([answers.listed_pair_json(pair, nested=index % 2 == 1) for index, pair in page])

    @app.get("/api/v1/pairs/public")
    def _pairs_v1() -> Response:
        return _json([answers.v1_pair_json(pair) for pair in catalog.pairs])

    @app.get("/api/v2/pairs/one")
    def _pair() -> Response:
        _require_signature(world)
        return _json(answers.one_pair_json(_pair_of(world, request.args.to_dict()), world.now()))


def _add_rate_routes(app: Flask, world: World) -> None:
    @app.get("/api/v2/rates/public/one")
    def _rate() -> Response:
        return _json(_rate_answer(world, request.args.to_dict()))

    @app.get("/api/v1/rates/public/one")
    def _rate_v1() -> Response:
        if not request.args.get("exchangeType"):
            raise refused(400, "exchangeType is required")
        return _json(_rate_answer(world, request.args.to_dict(), v1=True))

    @app.post("/api/v2/rates/public/one")
    def _rate_signed() -> Response:
        _require_signature(world)
        body = reading.json_body()
        for name in ("claimedDepositAmount", "rateMode", "claimedDepositAmountCurrency", "markup"):
            if not isinstance(body.get(name), str):
                raise refused(400, f"{name} must be a string")
        return _json(_rate_answer(world, body), 201)


def _add_order_routes(app: Flask, world: World) -> None:
    @app.post("/api/v2/orders/public/create")
    def _create() -> Response:
        _require_signature(world)
        return _created(world)

    @app.post("/api/v1/orders/public/create")
    def _create_v1() -> Response:
        return _created(world)

    @app.get("/api/v2/orders/public")
    @app.get("/api/v2/orders")
    def _orders() -> Response:
        # Observed live: with pagination parameters a signature over the empty body no longer verifies.
        _require_signature(world, query="signed")
        turn, moment = turn_of(request.environ), world.now()
        if turn.fault == faults.BEHIND:
            moment -= world.chaos.knobs.behind_seconds
        rows, order = world.listed_orders(at=moment), request.args.get("order", "desc")
        if order not in ("asc", "desc"):
            raise refused(400, "order must be asc or desc")
        if order == "desc":
            rows.reverse()
        start = reading.page_number("offset", 0)
        rows = rows[start : start + reading.page_number("limit", len(rows))]
        return _json([answers.listed_json(row, world.look(row, at=moment)) for row in rows])

    @app.get("/api/v2/orders/public-info")
    @app.get("/api/v1/orders/public-info")
    def _public_info() -> Response:
        destination, any_id = request.args.get("destinationAddress"), request.args.get("orderId")
        if not destination:
            raise refused(400, "destinationAddress is required")
        if any_id:
            found = world.order(any_id)
            known = found if found is not None and found.destination == destination else None
        else:
            known = next((row for row in reversed(world.orders()) if row.destination == destination), None)
        return _info(world, known)

    @app.get("/api/v2/orders/info")
    def _order_info() -> Response:
        return _info(world, world.order(request.args.get("orderId", "")))


def _json(value: Any, status: int = 200) -> Response:
    return Response(dump(value), status, mimetype="application/json")


def _info(world: World, order: Order | None) -> Response:
    """The body of a 404 is UNKNOWN upstream; ours is shape C."""
    if order is None:
        raise refused(404, "Order not found")
    seen, turn = world.look(order), turn_of(request.environ)
    turn.order = order.number
    alternates = world.chaos.alternates(order.number)
    if turn.fault == faults.STALE or alternates:
        moment = bending.stale_moment(seen, world.chaos.chance(turn, "stale"))
        if moment is not None:
            seen, turn.played = world.look(order, at=moment), True
    if seen.is_expired:
        raise order_expired()
    answer = bending.info(
        answers.info_json(order, seen),
        world.chaos.record(order.number),
        asked_with=request.args.get("orderId"),
        bends=_event_bends(world, turn, seen),
        chance=world.chaos.chance(turn, "shuffle"),
    )
    return _json(answer)


def _event_bends(world: World, turn: Turn, seen: Snapshot) -> set[str]:
    """The faults that bend the events of this answer. Empty where the answer will not arrive as it is: a fault that no
    client can see must not be counted, and one that was forced must not be spent."""
    if turn.fault not in (None, faults.STALE):
        return set()
    possible = {faults.DUPLICATED, faults.UNKNOWN_KIND}
    if len(seen.events) > 1:
        possible |= {faults.OLDEST_FIRST, faults.SHUFFLED}
    return {name for name in sorted(possible) if world.chaos.happens(name, turn)}


def _require_signature(world: World, *, query: Literal["signed", "either"] = "either") -> None:
    """`query` says whether the query string of a GET must be part of the signed text; whether it has to be is settled
    for the list only (docs/upstream.md section 2), elsewhere both forms pass."""
    if request.method == "POST":
        texts = signature.body_texts(request.get_data())
    else:
        raw = request.query_string
        texts = [raw] if query == "signed" else [raw, b""]
    headers = signature.SignatureHeaders(
        request.headers.get("X-Api-Public-Key"),
        request.headers.get("X-Api-Timestamp"),
        request.headers.get("X-Api-Signature"),
    )
    problem = signature.problem(
        headers,
        texts,
        public_key=world.public_key,
        secret_key=world.secret_key,
        clocks=world.signing_clocks(),
    )
    if problem:
        raise refused(401, problem)


def _instrument_of(world: World, body: reading.Body) -> Instrument:
    instrument = world.catalog.instrument(reading.text(body, "currencyTitle"), reading.text(body, "networkTitle"))
    if instrument is None:
        raise refused(404, "Instrument not found")
    return instrument


def _address_problem(world: World, body: reading.Body) -> tuple[str, str] | None:
    """(`address` or `memo`, reason). A missing memo is no problem here: the call cannot know that one is wanted."""
    instrument = _instrument_of(world, body)
    address, memo = reading.text(body, "address"), reading.optional_text(body, "memo")
    if reason := instrument.network.address_problem(address):
        return "address", reason
    if memo is not None and (reason := instrument.network.memo_problem(memo)):
        return "memo", reason
    return None


def _pair_of(world: World, query: reading.Body) -> Pair:
    """From the four title parameters."""
    names = [f"instrument{side}{title}Title" for side in ("From", "To") for title in ("Currency", "Network")]
    texts = [reading.text(query, name) for name in names]
    return _tradable(world, (texts[0], texts[1]), (texts[2], texts[3]))


def _tradable(world: World, source: tuple[str, str], target: tuple[str, str]) -> Pair:
    source_row, target_row = world.catalog.instrument(*source), world.catalog.instrument(*target)
    pair = world.catalog.pair(source_row, target_row) if source_row and target_row else None
    if pair is None:
        raise refused(422, "pair not supported")
    return pair


def _rate_answer(world: World, query: reading.Body, *, v1: bool = False) -> dict[str, Any]:
    pair = _pair_of(world, query)
    currency = reading.optional_text(query, "claimedDepositAmountCurrency")
    if currency not in (None, pair.source.currency, pair.target.currency):
        raise refused(400, "claimedDepositAmountCurrency must name a side of the pair")
    quote = world.market.quote(
        pair,
        now=world.now(),
        mode=reading.rate_mode(query),
        amount=reading.amount(query, "claimedDepositAmount"),
        amount_currency=currency,
        markup=reading.markup(query),
    )
    return rate_json(quote, v1=v1)


def _created(world: World) -> Response:
    body = reading.json_body()
    markup, referrer = reading.markup(body), reading.optional_text(body, "referrerId")
    if markup is not None and referrer is None:
        raise refused(400, "markup requires referrerId key")
    pair = _tradable(world, reading.side_titles(body, "instrumentFrom"), reading.side_titles(body, "instrumentTo"))
    amount = reading.amount(body, "claimedDepositAmount")
    if amount is None:
        raise refused(400, "claimedDepositAmount is required")
    mode = reading.rate_mode(body)
    if mode == "FIXED" and not pair.has_fixed_rate:
        raise refused(422, "rate mode FIXED is not available for this pair")
    order = world.create(
        OrderRequest(
            pair=pair,
            rate_mode=mode,
            amount=amount,
            destination=reading.text(body, "destinationAddress"),
            destination_memo=reading.optional_text(body, "destinationAddressMemo"),
            refund=reading.optional_text(body, "refundAddress"),
            refund_memo=reading.optional_text(body, "refundAddressMemo"),
            claimed_rate=reading.claimed_rate(body),
            referrer=referrer,
            markup=markup,
        )
    )
    turn, record = turn_of(request.environ), world.chaos.record(order.number)
    turn.order, record.create_fault = order.number, turn.fault
    if turn.fault == faults.OTHER_DESTINATION:
        record.echoed_destination = bending.other_destination(order)
    return _json(bending.created(answers.created_json(order, world.look(order)), order, record, turn.fault), 201)
