"""The options that the benchmarks share."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable

from tests.template import SWITCHES


def number_from(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a number of that range, so that nobody measures for ever."""

    def number(text: str) -> int:
        if not least <= (read := int(text)) <= most:
            raise ArgumentTypeError(f"should be from {least} to {most}")
        return read

    return number


def an_answer(text: str) -> tuple[str, str]:
    """Return a switch and its choice, from `io=sync`."""
    switch, _, choice = text.partition("=")
    if choice not in SWITCHES.get(switch, []):
        allowed = (f"{each}={'|'.join(SWITCHES[each])}" for each in SWITCHES)
        raise ArgumentTypeError(f"should be one of {', '.join(allowed)}")
    return switch, choice


def parser_of(benchmark: str, documentation: str | None) -> ArgumentParser:
    """Return a parser that knows the variant to measure already."""
    parser = ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description=(documentation or "").split("\n")[0],
    )
    parser.add_argument(
        "--variant",
        type=an_answer,
        nargs="*",
        default=[],
        metavar="SWITCH=CHOICE",
        help="as in io=sync pattern=unit_of_work; the defaults for the rest",
    )
    return parser
