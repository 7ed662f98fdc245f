"""How long signing in takes in vain: with an unknown e-mail, and a wrong password.

Both have to take the same time, or it would tell who is registered (S22). To measure
it, here with the synchronous variant:

    .venv/bin/python -m benchmarks.sign_in --count 100 --variant io=sync

A project is rendered and served by uvicorn on this machine, on an SQLite file of its
own. Requests are sent one at a time, of both kinds in turn, so that whatever else the
machine does slows both alike. No test: a busy machine would make it fail.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from httpx2 import Client

from benchmarks.options import number_from, parser_of
from tests.service import Service
from tests.shop import register, sign_in
from tests.template import render

ADA, NOBODY = "ada@example.com", "nobody@example.com"
WRONG_PASSWORD = "wrong horse"
WARM_UP = 5


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
    parser = parser_of("sign_in", __doc__)
    parser.add_argument(
        "--count",
        type=number_from(2, 10_000),  # Quartiles need two.
        default=100,
        help="of each kind (100)",
    )
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        project = render(dict(options.variant), Path(folder))
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
