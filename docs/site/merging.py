"""Merges what each set of answers gives into one sequence: what is shared, once.

A mask is a set of answers, a bit for each. A merged sequence has every item with the
mask of those that it belongs to; those of one set, in order, are what was put in.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher
from functools import cache
from typing import TypeVar

from docs.site.renderings import ANSWERS, EVERYWHERE, SWITCHES

T = TypeVar("T", bound=Hashable)


def by_content(contents: Sequence[T | None]) -> dict[T, int]:
    """Return each distinct content with its mask; None is none."""
    masks: dict[T, int] = {}
    for number, content in enumerate(contents):
        if content is not None:
            masks[content] = masks.get(content, 0) | 1 << number
    return masks


def merge(sequences: dict[tuple[T, ...], int]) -> list[tuple[int, T]]:
    """Return one sequence for all, from each distinct one and its mask."""
    merged: list[tuple[int, T]] = []
    for sequence, mask in sequences.items():
        if not merged:
            merged = [(mask, item) for item in sequence]
            continue
        known = [item for _, item in merged]
        matcher = SequenceMatcher(None, known, sequence, autojunk=False)
        both: list[tuple[int, T]] = []
        for tag, start, end, new_start, new_end in matcher.get_opcodes():
            if tag == "equal":
                both += [(old | mask, item) for old, item in merged[start:end]]
            else:
                both += merged[start:end]
                both += [(mask, item) for item in sequence[new_start:new_end]]
        merged = both
    return merged


def _mask_of(switch: str, choice: str) -> int:
    return sum(
        1 << number
        for number, answers in enumerate(ANSWERS)
        if answers[switch] == choice
    )


MASKS = {
    (switch, choice): _mask_of(switch, choice)
    for switch, choices in SWITCHES.items()
    for choice in choices
}


@cache
def conditions(mask: int, within: int = EVERYWHERE) -> tuple[tuple[str, ...], ...]:
    """Return the mask as alternatives that exclude each other: `io=sync` and so on."""
    if mask == 0:
        return ()
    if mask == within:
        return ((),)
    found: list[tuple[tuple[str, ...], ...]] = []
    for switch, choices in SWITCHES.items():
        parts = [within & MASKS[switch, choice] for choice in choices]
        if 0 in parts:
            continue  # It is decided already.
        alternatives = tuple(
            (f"{switch}={choice}", *rest)
            for choice, part in zip(choices, parts, strict=True)
            for rest in conditions(mask & part, part)
        )
        found.append(alternatives)
    return min(found, key=lambda each: (len(each), sum(map(len, each))))
