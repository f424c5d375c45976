"""Writes docs/lifecycle.md from the tables of swap.domain.lifecycle and swap.domain.schedules. `--check` compares: exit
1 if stale."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from swap.domain.expiry import APART, MISSED_LOOKS, UNSEEN_FOR
from swap.domain.facts import REPLACED_AFTER
from swap.domain.lifecycle import (
    LOCAL_EXPIRY,
    PROFILES,
    TERMINAL,
    TRANSITIONS,
    UNCOVERED_FOR,
    UNSENT_FOR,
    Status,
    funds,
)
from swap.domain.schedules import JITTER, PLANS, PollingPlan

TARGET = Path(__file__).with_name("lifecycle.md")

# One entry per row of docs/upstream.md section 5: what the upstream says, and what becomes of the order.
MAPPING: tuple[tuple[str, str, str], ...] = (
    (
        "1",
        "410 or `ERR_ORDER_EXPIRED`",
        "**expired**, once it was told twice, {apart} apart, and no more than a detection speaks of a deposit. After the "
        "first the order is not payable (`unverified`). A message that says expired moves nothing.",
    ),
    (
        "2",
        "`REFUND_COMPLETED`",
        "returns the oldest deposit that no payout covers. **refunded** once none is left. Where none was left, it takes "
        "the payout back: a *reversal* of a completed order. A refund or a payout of money that nobody had paid in is for "
        "an operator (`watch.review`).",
    ),
    (
        "3",
        "`completed` is true",
        "**completed**, even if `state` says otherwise; it stays so when another deposit comes, unless the payout itself is "
        "taken back.",
    ),
    (
        "4",
        "`WITHDRAWAL_COMPLETED` and a withdrawal with a transaction id",
        "**completed**. Without a transaction id: **sending**.",
    ),
    (
        "5",
        "`failedToCreate`",
        "keeps the status: an address that was shown stays watched. Payments to it end (`failed_to_create`).",
    ),
    (
        "6",
        "newest kind has AML, FROZEN, HOLD or KYC as a word; or a form link, where no event tells of a hold",
        "**on_hold**. Later progress ends the hold, and a link as soon as it is no longer told. Money that is detected "
        "afterwards does not, if the held money had already come further: it is another deposit.",
    ),
    ("7", "newest kind `REFUND_REQUESTED`", "**refunding**. Another deposit does not end it, real progress does."),
    ("8", "`FUNDS_WITHDRAWAL_START`, and that payout is not complete", "**sending**"),
    ("9", "`DEPOSIT_REGISTERED`, and no payout or refund covers that deposit", "**exchanging**"),
    ("10", "`INCOMING_FUNDS_DETECTED`, or any deposit listed, and none of the above", "**confirming**"),
    ("11", "newest kind `CREATION_END`, `isPendingToCreate`, or nothing at all", "**awaiting_deposit**"),
    (
        "12",
        "newest kind unknown",
        "Unknown kinds are ignored: the older, known ones decide, so the order stays where it was. The kind is logged.",
    ),
    (
        "13",
        "only the list: no events, no transfers, a word in `state`",
        "`created` and the like: **awaiting_deposit**. Words of money on the move lift an order that awaits its "
        "deposit to **confirming**, never further. Words of an end move nothing: a guess ends no order.",
    ),
)

FINAL_WORDS = {
    "no": "no",
    "yes": "yes, unless another deposit is left",
    "once unwatched": "once no longer watched",
    "once unwatched, without a deposit": "once no longer watched, if no deposit was seen",
}


def span(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        # 24 h reads better than 1 d beside 6 h, and 48 h better than 2 d.
        if seconds % size == 0 and seconds >= (3 * size if unit == "d" else size):
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def polls(plan: PollingPlan) -> str:
    if not plan.steps:
        return "never"
    parts = [f"every {span(every)}" + (f" until {span(until)}" if until else "") for until, every in plan.steps]
    if len(parts) > 1 and plan.steps[-1][0] is None:
        parts[-1] += " after that"
    since = "of age" if plan.clock == "age" else "after the change"
    timed = any(until for until, _ in plan.steps)
    return ", ".join(parts) + (f" ({since})" if timed else "")


def money(status: Status) -> str:
    if PROFILES[status].funds is None:
        return "as the facts say, or as before the review"
    with_deposit, without = funds(status, True), funds(status, False)
    return f"`{with_deposit}`" if with_deposit == without else f"`{with_deposit}`; no deposit seen: `{without}`"


def watch(status: Status) -> str:
    words = polls(PLANS[status])
    if status in (Status.CREATING, Status.IN_DOUBT):
        return "by the create and the resolver"
    return f"{words}; never if no address was shown" if status is Status.FAILED else words


def drawing() -> list[str]:
    """needs_review has no arrows: it may follow and precede nearly all states, and would hide the rest."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> creating"]
    for status, nexts in TRANSITIONS.items():
        if status is not Status.NEEDS_REVIEW:
            lines += [f"    {status} --> {to}" for to in Status if to in nexts and to is not Status.NEEDS_REVIEW]
    lines += [f"    {status} --> [*]" for status in Status if status in TERMINAL]
    return [*lines, "```"]


def render() -> str:
    review = [s for s in Status if Status.NEEDS_REVIEW in TRANSITIONS[s]]
    rows = []
    for status in Status:
        public = PROFILES[status].public
        nexts = ", ".join(to for to in Status if to in TRANSITIONS[status]) or "-"
        shown = public or "the state before it"
        final = FINAL_WORDS[PROFILES[status].final]
        rows.append(f"| {status} | {shown} | {money(status)} | {final} | {nexts} | {watch(status)} |")
    lines = [
        "# The life of an order",
        "",
        "Generated by `docs/make_lifecycle.py` from `swap/domain/lifecycle.py` and `swap/domain/schedules.py`; do not edit.",
        "",
        "## Drawing",
        "",
        "The table also allows needs_review after "
        + ", ".join(review)
        + ". An order comes there by a conflict after its customer was shown where to pay, or by hand, and only a person "
        'moves it on: [operations.md](operations.md), "An order under review".',
        "",
        *drawing(),
        "",
        "## Table",
        "",
        f"Polls are spread by {JITTER:.0%} up and down. Polls that fail are repeated at doubling intervals, up to an hour.",
        "",
        "| state | public name | money (`funds`) | final | next | polled |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "Polls miss steps, so an order may move forward over several states at once. When the upstream says something that",
        "this table does not allow, nothing changes, and it is journalled.",
        "",
        "## What the upstream says, and what it means",
        "",
        "The current answer counts: of those that are not stale, the one that was asked for last. An answer is stale",
        "when it brings no new event and lacks one that is known, or when its `updatedAt` is older: then it changes",
        "nothing. Deposits and payouts are those of the current answer, and older ones that were settled. So the",
        "status does not depend on when an order was polled, nor on the order in which answers came. Events are",
        "sorted by time; within one millisecond, by the course of an order. Their place in the array does not matter.",
        "The rows are tried from top to bottom; their numbers are those of docs/upstream.md section 5.",
        "",
        "| # | the upstream says | state |",
        "|---|---|---|",
        *(f"| {number} | {said} | {then.format(apart=span(APART))} |" for number, said, then in MAPPING),
        "",
        "## More than one deposit",
        "",
        "Deposits and payouts are counted, never converted. A payout covers the deposits that were registered before",
        "it began, a refund the oldest one that nothing covers. While a deposit of a completed or refunded order is",
        "covered by neither, `funds` says where it is (`with_upstream`, `seen_on_chain`), and the order is not",
        "`final`, and polled every hour. Each further deposit gives an `order.late_deposit`.",
        "",
        "A pending deposit that an answer no longer lists was replaced by its sender (a fee bump) or dated anew: only",
        f"what the newest answer lists counts. Once {REPLACED_AFTER} answers have left it out, it comes back only",
        "settled.",
        "",
        "## What time does",
        "",
        "Time moves an order whether the upstream answers or not. The upstream has no way to cancel an order, and a deposit",
        "address cannot be taken back. So an address that was shown stays visible, and its order stays watched as the table",
        "says; what changes is the word for it.",
        "",
        f"- **Age.** After {span(LOCAL_EXPIRY)} without any sign of a deposit an order is called expired here",
        "  (`local_expiry`). Only a deposit brings it back (`late_deposit`), to the state that the facts give.",
        "- **An expiry that was told and taken back.** An upstream that goes on to answer well takes it back: the first",
        f"  doubt by one good answer, later ones and a confirmed expiry by two, {span(APART)} apart. A confirmed one is",
        "  taken back once at most (`expiry_taken_back`), and only while nothing was paid.",
        "- **The end of a fixed rate.** Where the upstream named a window (`deposit.payable_until`), the order is not",
        "  payable after it, for good (`fixed_rate_ended`).",
        f"- **Money that does not move.** A deposit that is neither paid out nor returned {span(UNCOVERED_FOR)} after",
        "  the last movement comes under review, a payout that is not complete after",
        f"  {span(UNSENT_FOR)}. What only a word in `state` calls on the move does so after {span(LOCAL_EXPIRY)}. On hold",
        "  it waits for the customer.",
        f"- **Silence.** After {MISSED_LOOKS} missed polls in a row, and {span(UNSEEN_FOR)} without an answer, the order is",
        "  not payable (`unverified`), until a poll agrees with everything again.",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    text = render()
    if "--check" in argv:
        if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
            return 0
        print("docs/lifecycle.md is not what the tables say; run: make docs", file=sys.stderr)
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
