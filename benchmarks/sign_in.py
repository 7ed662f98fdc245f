"""How long signing in takes in vain: with an unknown e-mail, and a wrong password.

Both have to take the same time, or it would tell who is registered (S22). To measure
it, here with the synchronous variant:

    .venv/bin/python -m benchmarks.sign_in --count 100 --variant io=sync

A project is rendered and served by uvicorn on this machine, on an SQLite file of its
own. Requests are sent one at a time, of both kinds in turn, so that whatever else the
machine does slows both alike. No test: a busy machine would make it fail.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from cookiecutter.main import cookiecutter
from httpx2 import Client

from tests.service import Service, register, sign_in
from tests.template import ROOT, SWITCHES, settings_in

ADA, NOBODY = "ada@example.com", "nobody@example.com"
WRONG_PASSWORD = "wrong horse"
MOST = 10_000
WARM_UP = 5


def a_count(text: str) -> int:
    """Return how many of each kind to send: enough for quartiles, and not for ever."""
    if not 2 <= (count := int(text)) <= MOST:
        raise argparse.ArgumentTypeError(f"should be from 2 to {MOST}")
    return count


def an_answer(text: str) -> tuple[str, str]:
    """Return a switch and its choice, from `io=sync`."""
    switch, _, choice = text.partition("=")
    if choice not in SWITCHES.get(switch, []):
        allowed = (f"{each}={'|'.join(SWITCHES[each])}" for each in SWITCHES)
        raise argparse.ArgumentTypeError(f"should be one of {', '.join(allowed)}")
    return switch, choice


def rendered(answers: dict[str, str], folder: Path) -> Path:
    """Render the variant that the answers give into a folder."""
    project = cookiecutter(
        str(ROOT),
        no_input=True,
        extra_context=answers,
        output_dir=str(folder),
        config_file=str(settings_in(folder)),
    )
    return Path(project)


def milliseconds(client: Client, email: str) -> float:
    """Return how long it takes to be refused."""
    start = time.perf_counter()
    answer = sign_in(client, email, WRONG_PASSWORD)
    taken = time.perf_counter() - start
    assert answer.status_code == 401, answer.text
    return taken * 1_000


def measured(client: Client, count: int) -> dict[str, list[float]]:
    """Return the times of both kinds, which take turns, as does which one is first."""
    times: dict[str, list[float]] = {NOBODY: [], ADA: []}
    for number in range(WARM_UP + count):
        for email in [NOBODY, ADA][:: -1 if number % 2 else 1]:
            taken = milliseconds(client, email)
            if number >= WARM_UP:
                times[email].append(taken)
    return times


def line(what: str, times: list[float]) -> str:
    """Return the median and the quartiles as a line."""
    lower, _, upper = quantiles(times, n=4)
    middle = f"median {median(times):.1f} ms"
    return f"{what}: {middle}, interquartile range {lower:.1f} to {upper:.1f} ms"


def main() -> None:
    """Measure, and print what it gave."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sign_in", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--count", type=a_count, default=100, help="of each kind (100)")
    parser.add_argument(
        "--variant",
        type=an_answer,
        nargs="*",
        default=[],
        metavar="SWITCH=CHOICE",
        help="as in io=sync pattern=unit_of_work; the defaults for the rest",
    )
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        project = rendered(dict(options.variant), Path(folder))
        with Service(project) as service:
            client = service.client()
            assert register(client, ADA).status_code == 201
            times = measured(client, options.count)
    print(line("unknown e-mail", times[NOBODY]))
    print(line("wrong password", times[ADA]))
    difference = median(times[ADA]) - median(times[NOBODY])
    print(f"difference of the medians: {difference:+.1f} ms")


if __name__ == "__main__":
    main()
