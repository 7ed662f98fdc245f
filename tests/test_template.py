"""The variants that stand for all sixteen do so."""

from __future__ import annotations

import itertools

from tests.template import COMBINATIONS, DEFAULT, OPPOSITE, PAIRS, SWITCHES


def test_the_default_is_the_first_of_all_choices() -> None:
    assert {switch: choices[0] for switch, choices in SWITCHES.items()} == DEFAULT


def test_the_opposite_has_no_choice_in_common_with_it() -> None:
    assert DEFAULT.items() & OPPOSITE.items() == set()


def test_any_two_choices_meet_in_a_pair() -> None:
    def meetings(variants: list[dict[str, str]]) -> set[tuple[tuple[str, str], ...]]:
        return {
            two
            for each in variants
            for two in itertools.combinations(sorted(each.items()), 2)
        }

    assert meetings(PAIRS) == meetings(COMBINATIONS)
