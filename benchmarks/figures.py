"""Figures as they are stored, and what may be concluded from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import floor, sqrt
from pathlib import Path
from platform import machine, python_version, system
from statistics import median
from typing import Any

from tests.template import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    *("fastapi", "starlette", "pydantic", "sqlalchemy", "sqlmodel", "asyncpg"),
    *("psycopg", "psycopg-pool", "uvicorn", "uvloop", "httptools", "pyjwt"),
)


class NotMeasuredError(LookupError):
    """There are no such figures yet."""


@dataclass(frozen=True)
class Ratio:
    """How many times as much one service is as another, over rounds that alternate.

    `low` and `high` are where the median is with a confidence of 95 %, by the ranks of
    the rounds: nothing is assumed of how they are distributed.
    """

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: list[float], theirs: list[float]) -> Ratio:
        """Compare each round with the other's, which was measured just before or after.

        Raises `ZeroDivisionError` if the other was nothing.
        """
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        low, high = confidence(ratios)
        return cls(median(ratios), low, high)

    @property
    def shows_a_difference(self) -> bool:
        """Whether it differs from 1 by more than it is uncertain: 1 is not within."""
        return not self.low <= 1 <= self.high

    def __str__(self) -> str:
        spread = f"{self.low:.2f} to {self.high:.2f}"
        if not self.shows_a_difference:
            return f"no difference shown ({spread})"
        return f"**{self.middle:.2f}** ({spread})"


def confidence(values: list[float]) -> tuple[float, float]:
    """Return between which of the values their median is, with a confidence of 95 %.

    With fewer than six that is between the smallest and the largest.
    """
    beyond = max(floor((len(values) - 1.96 * sqrt(len(values))) / 2), 1)
    ordered = sorted(values)
    return ordered[beyond - 1], ordered[-beyond]


def read(name: str) -> dict[str, Any]:
    """Return stored figures; nothing if there are none."""
    path = RESULTS / f"{name}.json"
    stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return stored


def part(name: str, key: str) -> Any:
    """Return a part of stored figures, or raise `NotMeasuredError`."""
    stored = read(name)
    if key not in stored:
        raise NotMeasuredError(f"{key} of {name}")
    return stored[key]


def store(name: str, figures: dict[str, Any]) -> None:
    """Put figures beside those of the same name that were stored before."""
    RESULTS.mkdir(exist_ok=True)
    everything = read(name) | {"where": where()} | figures
    path = RESULTS / f"{name}.json"
    path.write_text(_compact(everything) + "\n", encoding="utf-8")


def _compact(figures: dict[str, Any], depth: int = 0) -> str:
    """Return JSON with a line for each of the inner objects, which diffs can show."""
    if not any(isinstance(each, dict) for each in figures.values()):
        return json.dumps(figures)
    lines = [
        f"{' ' * (depth + 1)}{json.dumps(key)}: "
        + (_compact(val, depth + 1) if isinstance(val, dict) else json.dumps(val))
        for key, val in figures.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


def where() -> dict[str, Any]:
    """Return the machine, the day and the versions."""
    processors = Path("/proc/cpuinfo").read_text()
    names = [each for each in processors.splitlines() if each.startswith("model name")]
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "processors": f"{len(names)} of {names[0].partition(': ')[2]}",
        "system": f"{system()} {machine()}",
        "python": python_version(),
        **{package: version(package) for package in PACKAGES},
    }
