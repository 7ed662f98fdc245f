"""The table of what the slow tests have shown."""

from __future__ import annotations

import pytest

from tests.evidence import CHECKS, FIGURES, VARIANT, table
from tests.template import EXTREMES, name_of

FIRST, LAST = map(name_of, EXTREMES)


def report(
    variant: str, when: str, outcome: str = "passed", **figures: float
) -> pytest.TestReport:
    properties = {VARIANT: variant, **figures}
    return pytest.TestReport(
        "tests/attacks/test_streams.py::test",
        ("", None, ""),
        {},
        outcome,  # type: ignore[arg-type]
        None,
        when,  # type: ignore[arg-type]
        user_properties=properties.items(),
    )


def cells(line: str) -> dict[str, str]:
    """Return the cells of a line that are not empty, by their heading."""
    headings = [VARIANT, *CHECKS.values(), *(head for head, _ in FIGURES.values())]
    found = [each.strip() for each in line.strip("|").split("|")]
    return {key: val for key, val in zip(headings, found, strict=True) if val}


def test_each_variant_has_its_figures_and_what_failed() -> None:
    reports = [
        report(FIRST, "call", lost=1, recovery=0.5),
        report(FIRST, "teardown", lost=1, recovery=0.5),
        report(FIRST, "call", lost=2, recovery=0.25),
        report(FIRST, "teardown", lost=2, recovery=0.25),
        report(LAST, "setup", outcome="failed"),
        report(LAST, "teardown"),
    ]
    _, _, first, last = table(reports)
    attacks = CHECKS["tests/attacks/"]
    lost, recovery = FIGURES["lost"][0], FIGURES["recovery"][0]
    assert cells(first) == {VARIANT: FIRST, attacks: "2", lost: "3", recovery: "0.5"}
    assert cells(last) == {VARIANT: LAST, attacks: "failed"}


def test_without_variants_there_is_no_table() -> None:
    assert table([]) == []
