"""A release has one number everywhere."""

from __future__ import annotations

import re
import tomllib

from tests.template import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADING = re.compile(
    r"^## (\d+\.\d+\.\d+) \((unreleased|\d{4}-\d\d-\d\d)\)$", re.MULTILINE
)
HEADINGS = HEADING.findall(CHANGELOG)


def test_the_version_is_the_newest_of_the_changelog() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["version"] == HEADINGS[0][0]
    assert len(HEADINGS) == CHANGELOG.count("\n## ")
    dates = [date for _, date in HEADINGS]
    assert "unreleased" not in dates[1:]
    assert dates == sorted(dates, reverse=True)  # a word comes after all numbers


def test_the_readme_checks_out_the_last_release() -> None:
    released = next(version for version, date in HEADINGS if date != "unreleased")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {*re.findall(r"--checkout v([\d.]+)", readme)} == {released}
