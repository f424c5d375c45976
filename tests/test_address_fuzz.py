"""The fuzzer of bench/fuzz_addresses.py, small and with a fixed seed; `make fuzz` runs a million inputs."""

from __future__ import annotations

from itertools import islice

from bench.fuzz_addresses import Report, fuzz, inputs, longest


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
