"""What requests look like. Form only: whether an instrument exists or an address is right is for the use cases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unicodedata import category

import orjson
from marshmallow import RAISE, Schema, ValidationError, fields, validate

from swap import addresses
from swap.domain import money, search_terms
from swap.domain.lifecycle import PUBLIC
from swap.errors import FieldProblem
from swap.push.endpoints import LONGEST_OVERLAP, OVERLAP, REDELIVERABLE
from swap.push.payload import TYPES

MAX_METADATA_BYTES = 4096
# Above it a JSON number is no longer the same number everywhere; PostgreSQL hands 1e20 back as an integer, for one.
_LARGEST_NUMBER = 2**53
# Unicode's categories of control and format characters and of separators of lines and paragraphs.
_HIDDEN = {"Cc", "Cf", "Zl", "Zp"}


class Amount(fields.Field[Any]):
    """A decimal string; a JSON number is refused, since it may have lost digits before we saw it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return money.parse(value)
        except ValueError as error:
            raise ValidationError([FieldProblem("AMOUNT_MALFORMED", str(error))]) from None


class Metadata(fields.Dict):
    """Stored and returned as it came, so only values that every database and JSON writer returns as they came."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        metadata = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]
        if _holds_large_number(metadata):
            raise ValidationError("Holds a number above 2^53; send it as text.")
        if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
            raise ValidationError(f"Longer than {MAX_METADATA_BYTES} bytes as JSON.")
        return metadata


class Moment(fields.Field[Any]):
    """An ISO-8601 time with its zone."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        raise ValidationError([FieldProblem("TIME_MALFORMED", "A time looks like 2026-01-31T12:00:00Z.")])


def _holds_large_number(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(_holds_large_number(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and abs(value) > _LARGEST_NUMBER


def _text(maximum: int, *, required: bool = False, **kwargs: Any) -> fields.String:
    """Text of 1 to `maximum` characters; null counts as not given."""
    limits: list[Any] = [validate.Length(1, maximum), _no_nul]
    return fields.String(required=required, allow_none=not required, validate=limits, **kwargs)


def _no_nul(value: str) -> None:
    # PostgreSQL cannot store it, and nothing a caller means contains it.
    if "\x00" in value or any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise ValidationError("Holds a character that is no text.")


def _name(maximum: int, *, required: bool = False, **kwargs: Any) -> fields.String:
    """As `_text`, for what people read and programs compare: two of them must not look alike and be different."""
    field = _text(maximum, required=required, **kwargs)
    field.validators.append(_visible)
    return field


def _visible(value: str) -> None:
    """Raises ValidationError for blanks at the ends, and for control, bidirectional and zero-width characters."""
    hidden = next((position for position, c in enumerate(value) if category(c) in _HIDDEN), None)
    if hidden is not None:
        name = f"U+{ord(value[hidden]):04X}"
        message = f"Holds a character that nobody sees, {name}, at position {hidden}."
        raise ValidationError([FieldProblem("TEXT_MALFORMED", message, {"character": name, "position": hidden})])
    if value != value.strip():
        raise ValidationError([FieldProblem("TEXT_MALFORMED", "Begins or ends with a blank.")])


def _no_repeats(terms: list[str]) -> None:
    if len({search_terms.key(term) for term in terms}) < len(terms):
        raise ValidationError("Holds a term twice; case does not count.")


class Strict(Schema):
    class Meta:
        unknown = RAISE


class InstrumentName(Strict):
    currency = _text(64, required=True)
    network = _text(64, required=True)


def _side(name: str) -> fields.Nested:
    return fields.Nested(InstrumentName, required=True, metadata={"description": f"The {name} instrument."})


# `from` is a word of the language, so these fields are put into their schemas by name.
_ROUTE = {"from": _side("deposited"), "to": _side("paid out")}
_MODES = validate.OneOf(["FLOATING", "FIXED"])

QuoteRequest = Strict.from_dict(
    {
        **_ROUTE,
        "amount": Amount(allow_none=True, metadata={"description": "On the deposit side; without it, limits only."}),
        "rate_mode": fields.String(load_default="FLOATING", validate=_MODES),
    },
    name="QuoteRequest",
)


def _waiver(wallet: str) -> fields.Boolean:
    description = f"True: {wallet} needs no memo, although the instrument usually does."
    return fields.Boolean(truthy={True}, falsy={False}, metadata={"description": description})


def _validation_id(side: str) -> fields.String:
    description = f"From /v1/addresses/validate for exactly this {side}; spares the upstream a second question."
    return _text(1024, metadata={"description": description})


PlaceOrder = Strict.from_dict(
    {
        "client_order_id": _name(64, required=True, metadata={"description": "Yours; unique for ever."}),
        **_ROUTE,
        "amount": Amount(required=True, metadata={"description": "What will be deposited, as a decimal string."}),
        "rate_mode": fields.String(required=True, validate=_MODES),
        "destination_address": _text(addresses.LONGEST, required=True),
        # Length is the network's business, and an empty memo is a mistake worth its own answer.
        "destination_memo": fields.String(allow_none=True, validate=[validate.Length(0, 4096), _no_nul]),
        "destination_memo_none": _waiver("the receiving wallet"),
        "refund_address": _text(addresses.LONGEST),
        "refund_memo": fields.String(allow_none=True, validate=[validate.Length(0, 4096), _no_nul]),
        "refund_memo_none": _waiver("the refund wallet"),
        "quote_id": _text(4096),
        "destination_validation_id": _validation_id("destination"),
        "refund_validation_id": _validation_id("refund"),
        "user_id": _name(128),
        "session_id": _name(128),
        "account_id": _name(128),
        "search_terms": fields.List(
            _name(search_terms.LONGEST, required=True),
            allow_none=True,
            validate=[validate.Length(max=search_terms.MOST), _no_repeats],
            metadata={
                "description": "Texts to find the order by, such as an e-mail address or the number of an invoice; case does"
                " not count. In your answers, events and webhooks; whoever has a tracking token does not see them."
            },
        ),
        "metadata": Metadata(keys=fields.String(), allow_none=True),
    },
    name="PlaceOrder",
)


class ValidateAddress(Strict):
    currency = _text(64, required=True)
    network = _text(64, required=True)
    # Taken as it is: a wrong address is an answer here, not an error.
    address = fields.String(required=True, validate=validate.Length(0, 4096))
    memo = fields.String(allow_none=True, validate=validate.Length(0, 4096))
    memo_none = _waiver("the wallet")


_VERDICTS = ["valid", "invalid", "unchecked"]


class OfflineVerdict(Schema):
    status = fields.String(validate=validate.OneOf(_VERDICTS))
    reason = fields.String(allow_none=True)
    as_of = fields.String()


class UpstreamVerdict(Schema):
    status = fields.String(validate=validate.OneOf(["valid", "invalid", "unavailable", "not_asked"]))
    reason = fields.String(allow_none=True, metadata={"description": "In the upstream's words."})
    as_of = fields.String(allow_none=True)


class SendForm(Schema):
    address = fields.String()
    memo = fields.String(allow_none=True)


class MemoVerdict(Schema):
    name = fields.String(metadata={"description": "What people call it: destination tag, comment."})
    status = fields.String(
        validate=validate.OneOf(["given", "in_address", "missing", "waived", "not_needed", "invalid"])
    )
    required = fields.Boolean()
    may_be_waived = fields.Boolean(metadata={"description": "`memo_none` is an answer."})
    allowed = fields.Boolean()
    format = fields.String()


class AddressAnswer(Schema):
    """Act on `orderable` alone: `status` is about the address, which can be valid while its memo is missing."""

    status = fields.String(validate=validate.OneOf(_VERDICTS))
    valid = fields.Boolean(allow_none=True, metadata={"description": "`status` as a truth value; not `orderable`."})
    orderable = fields.Boolean(metadata={"description": "An order to it would be accepted."})
    field = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    message = fields.String()
    hint = fields.String(allow_none=True)
    problems = fields.Dict(
        metadata={"description": "address, memo, memo_none -> problems, as an order would have them."}
    )
    offline = fields.Nested(OfflineVerdict)
    upstream = fields.Nested(UpstreamVerdict)
    normalised = fields.String(allow_none=True)
    send = fields.Nested(SendForm, allow_none=True, metadata={"description": "What would go to the upstream."})
    embedded_memo = fields.String(allow_none=True)
    warnings = fields.List(fields.String())
    memo = fields.Nested(MemoVerdict)
    validation_id = fields.String(allow_none=True)
    validation_expires_at = fields.String(allow_none=True)


class PairsQuery(Strict):
    from_currency = _text(64)
    from_network = _text(64)
    to_currency = _text(64)
    to_network = _text(64)
    after = _text(1024)
    limit = fields.Integer(load_default=500, validate=validate.Range(1, 1000))


def _known_types(value: str) -> None:
    unknown = {name.strip() for name in value.split(",")} - TYPES
    if unknown:
        raise ValidationError(f"There are no such events. There are: {', '.join(sorted(TYPES))}.")


def _moment(description: str) -> fields.AwareDateTime:
    # At the ends of time there is none in UTC.
    ours = validate.Range(datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC))
    # In a query a bare "+" is a blank, so a zone of +01:00 never arrives as one.
    message = "A time looks like 2026-01-31T12:00:00Z or 2026-01-31T13:00:00%2B01:00: in a query a + is written %2B."
    return fields.AwareDateTime(
        format="iso",
        validate=ours,
        error_messages={"invalid": message, "invalid_awareness": message},
        metadata={"description": description},
    )


class OrdersQuery(Strict):
    status = fields.String(validate=validate.OneOf(sorted(PUBLIC)))
    client_order_id = _text(64)
    user_id = _text(128)
    session_id = _text(128)
    account_id = _text(128)
    search_term = _text(
        search_terms.LONGEST, metadata={"description": "One of the order's `search_terms`, whole; case does not count."}
    )
    ids = fields.String(
        validate=validate.Regexp(r"[^,]{1,64}(,[^,]{1,64}){0,99}\Z", error="A comma list of 1 to 100 ids."),
        metadata={"description": "Ids of orders, as a comma list of at most 100."},
    )
    from_currency = _text(64)
    from_network = _text(64)
    to_currency = _text(64)
    to_network = _text(64)
    destination_address = _text(addresses.LONGEST)
    destination_memo = _text(256)
    deposit_address = _text(addresses.LONGEST)
    deposit_memo = _text(256)
    upstream_order_id = _text(128)
    tx_id = _text(256)
    created_since = _moment("Made at this time or later; ISO-8601 with a zone.")
    created_until = _moment("Made before this time.")
    updated_since = _moment("Changed at this time or later.")
    updated_until = _moment("Changed before this time.")
    after = _text(256)
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


class Clue(Strict):
    clue = _text(
        addresses.LONGEST, required=True, metadata={"description": "Whole; only in search terms case does not count."}
    )
    limit = fields.Integer(load_default=20, validate=validate.Range(1, 100))


class EventsQuery(Strict):
    after = _text(64)
    types = fields.String(
        validate=[validate.Length(1, 512), _known_types], metadata={"description": "A comma list of event types."}
    )
    order_id = _text(64)
    since = _moment("Changes at this time or later; ISO-8601 with a zone.")
    until = _moment("Changes before this time.")
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


_ENDPOINT: dict[str, fields.Field[Any]] = {
    "types": fields.List(
        fields.String(validate=validate.Length(1, 64)),
        validate=validate.Length(0, 64),
        metadata={"description": f"Empty for all. There are: {', '.join(sorted(TYPES))}."},
    ),
    "description": _name(200),
}

CreateEndpoint = Strict.from_dict({"url": _text(2048, required=True), **_ENDPOINT}, name="CreateEndpoint")
ChangeEndpoint = Strict.from_dict(
    {
        # Each may be left out; none but the description may be null.
        "url": fields.String(validate=[validate.Length(1, 2048), _no_nul]),
        "enabled": fields.Boolean(truthy={True}, falsy={False}),
        **_ENDPOINT,
    },
    name="ChangeEndpoint",
)


class RotateSecret(Strict):
    overlap_seconds = fields.Integer(
        strict=True,
        load_default=int(OVERLAP.total_seconds()),
        validate=validate.Range(0, int(LONGEST_OVERLAP.total_seconds())),
        metadata={"description": "How long the old secret signs as well; 0 ends it at once."},
    )


class DeliveriesQuery(Strict):
    endpoint = _text(64)
    order_id = _text(64)
    status = fields.String(validate=validate.OneOf(["pending", "delivered", "failed", "skipped"]))
    since = Moment(metadata={"description": "Made at this time or later."})
    after = _text(64)
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))


class RedeliverAll(Strict):
    endpoint = _text(64, required=True)
    since = Moment(required=True, metadata={"description": "Deliveries made at this time or later."})
    statuses = fields.List(
        fields.String(validate=validate.OneOf(REDELIVERABLE)),
        load_default=["failed"],
        validate=validate.Length(1, 3),
    )
