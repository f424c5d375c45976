"""The fuzzer of bench/fuzz_addresses.py, small and with a fixed seed (`make fuzz` runs a million inputs), and the book in
which differences from other libraries are explained."""

from __future__ import annotations

from itertools import islice

from bench.fuzz_addresses import Report, fuzz, inputs, longest, vectors
from bench.referees import explanations
from swap.addresses.networks import NETWORKS


def test_no_input_raises_and_every_verdict_keeps_its_promises() -> None:
    report = fuzz(6_000, seed=20_240_101)
    assert report.faults == []
    assert report.verdicts["valid"] > 500
    assert report.verdicts["invalid"] > 3_000
    assert len(report.reasons) > 25


def test_endless_text_costs_no_more_than_short_text() -> None:
    # Processor time, which a busy machine does not stretch; the bound is a hundred times what the slowest needs.
    report = Report()
    for asked in longest():
        report.ask(asked)
    assert report.faults == []


def test_the_same_seed_makes_the_same_inputs() -> None:
    assert list(islice(inputs(3), 200)) == list(islice(inputs(3), 200))


def test_every_difference_from_a_referee_names_rows_that_exist_and_who_is_right() -> None:
    rows = vectors()
    for entry in explanations():
        assert entry.networks <= set(NETWORKS)
        assert entry.right in ("ours", "theirs", "both")
        assert entry.why.endswith(".")
        valid = entry.kind == "false_refusal"
        covered = [row for row in rows if entry.covers(entry.library, entry.kind, row)]
        assert any(row["valid"] is valid for row in covered) or (entry.kind == "crash" and covered), entry.why
