"""What the slow tests have shown: a table, with a row for each variant."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

import pytest

from tests.template import COMBINATIONS, Answers, name_of

VARIANT = "variant"
# What tests note, how it is headed, and what several of them make of it.
FIGURES: dict[str, tuple[str, Callable[[Iterable[float]], float]]] = {
    "own": ("own tests", sum),
    "pooled": ("behind PgBouncer", sum),
    "requests": ("requests of the fuzzer", sum),
    "transfers": ("transfers", sum),
    "acknowledged": ("writes acknowledged", sum),
    "lost": ("of these lost", sum),
    "left": ("clients that left", sum),
    "leaked": ("connections leaked", sum),
    "recovery": ("longest recovery (s)", max),
}
# Tests that are counted themselves, by where they are.
CHECKS = {"tests/test_mutants.py": "mutants caught", "tests/attacks/": "attacks"}

running: pytest.Item | None = None


def variant_of(item: pytest.Item) -> Answers | None:
    """Return the variant that a test is about, if it is about one."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    variants = [getattr(each, "variant", each) for each in parameters]
    return next((each for each in variants if each in COMBINATIONS), None)


def note(**figures: float) -> None:
    """Note what the running test has found out, by the names in FIGURES."""
    assert running, "no test is running"
    running.user_properties.extend(figures.items())


def count_passed(output: str) -> int:
    """Return how many tests have passed, from what pytest says in the end."""
    (count,) = re.findall(r"\b(\d+) passed", output)
    return int(count)


def table(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Return the lines of a table in Markdown; none if no variant was tested."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    failed: set[tuple[str, str]] = set()
    for report in reports:
        variant = dict(report.user_properties).get(VARIANT)
        check = next((each for each in CHECKS if report.nodeid.startswith(each)), "")
        if not isinstance(variant, str):
            continue
        if report.failed:
            failed.add((variant, check))
        elif report.when == "call" and report.passed:
            found[variant][check].append(1)
        for name, value in report.user_properties:
            # In the end there is also what fixtures have noted.
            if report.when == "teardown" and isinstance(value, int | float):
                found[variant][name].append(value)
    headings = [VARIANT, *CHECKS.values(), *(head for head, _ in FIGURES.values())]
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1)]
    for variant in map(name_of, COMBINATIONS):
        cells = [
            "failed" if (variant, check) in failed else str(len(passed) or "")
            for check in CHECKS
            for passed in [found[variant][check]]
        ]
        for name, (_, combine) in FIGURES.items():
            values = found[variant][name]
            cells.append(f"{round(combine(values), 3):.10g}" if values else "")
        if any(cells):
            lines.append([variant, *cells])
    return [f"| {' | '.join(line)} |" for line in lines if len(lines) > 2]
