"""Many transfers between few users at once: no money comes or goes."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.evidence import note
from tests.postgres import Server
from tests.shop import (
    PATIENTLY,
    WRONG_BALANCES,
    Somebody,
    assert_is_whole,
    opened,
    somebody,
    transfer,
)
from tests.template import COMBINATIONS, PAIRS, name_of

pytestmark = pytest.mark.slow


def give(end: float, most: int, users: list[Somebody], number: int) -> Counter[int]:
    """Give money from one user to another until the end; count the statuses."""
    answers = Counter[int]()
    random = Random(number)
    while time.monotonic() < end and answers.total() < most:
        sender, recipient = random.sample(users, 2)
        given = transfer(sender.client, recipient.email, random.randint(1, 9_000))
        answers[given.status_code] += 1
    return answers


@pytest.mark.parametrize(
    ("project", "most"),
    [(each, 10_000 if each in PAIRS else 2) for each in COMBINATIONS],
    indirect=["project"],
    ids=map(name_of, COMBINATIONS),
)
def test_no_transfer_is_lost_made_twice_or_fails(
    project: Path, most: int, server: Server, stocked: str
) -> None:
    with (
        opened(project, server, stocked, **PATIENTLY) as shop,
        ThreadPoolExecutor(50) as threads,
    ):
        users = [somebody(shop) for _ in range(4)]
        giving = partial(give, time.monotonic() + 10, most, users)
        answers = sum(threads.map(giving, range(50)), Counter[int]())
        retries = shop.service.log.count("conflict or lost connection in")
        print(dict(answers), "retries:", retries)
        note(transfers=answers[201])
        assert answers.keys() == {201, 409}, answers
        assert retries, "nobody was in the way of anybody"
        assert shop.count("transfers") == answers[201]
        assert shop.sql("SELECT sum(balance) FROM users") == [(40_000,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)
