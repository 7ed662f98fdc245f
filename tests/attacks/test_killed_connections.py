"""Connections are killed while clients write: nothing is lost or done twice."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from httpx2 import Response

from tests.attacks import in_all_variants
from tests.attacks.writers import (
    WRITERS,
    assert_is_honest,
    begun_after,
    recovered_after,
    writing,
)
from tests.evidence import note
from tests.service import wait_until
from tests.shop import (
    CONNECTIONS,
    PATIENTLY,
    UNKNOWN,
    WRONG_BALANCES,
    OpenShop,
    Somebody,
    assert_is_whole,
    somebody,
    transfer,
)

pytestmark = pytest.mark.slow

# One UPDATE of three loses its connection with the same word that fails it.
DYING_WORDS = """
CREATE SEQUENCE deaths;
CREATE FUNCTION die_failing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('deaths') % 3 = 1 THEN
        RAISE EXCEPTION 'this was not to be' USING ERRCODE =
            CASE WHEN pg_terminate_backend(pg_backend_pid()) THEN '40001' END;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER die_failing BEFORE UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION die_failing();
"""
KILL_ALL = f"""
SELECT count(*) FROM (SELECT pg_terminate_backend(pid) AS killed {CONNECTIONS}) AS all_
WHERE killed
"""
WRITES = 2_000


@in_all_variants
def test_no_acknowledged_write_is_lost_when_connections_are_killed(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop:
        kills = []
        with writing(shop) as writes:
            while len(writes) < WRITES:
                time.sleep(0.3)
                kills += shop.sql(KILL_ALL)
            last = time.monotonic()
            wait_until(lambda: len(begun_after(last + 1, writes)) >= WRITERS)
        killed = sum(count for (count,) in kills)
        recovery = recovered_after(last, writes)
        print(f"{killed} killed in {len(kills)} rounds, {recovery:.3f} s to recover,")
        note(recovery=recovery)
        print(assert_is_honest(shop, writes))
        assert killed > len(kills) > 2
        assert recovery < 1
        assert_is_whole(shop)
        shop.sql(KILL_ALL)
        wait_until(lambda: shop.connections() == 0)
        assert_is_whole(shop)  # Nobody fails for what died while nobody used it.


def test_a_transfer_that_fails_as_its_connection_dies_is_made_again(
    open_shop: OpenShop,
) -> None:
    with open_shop(**PATIENTLY) as shop:
        sender, recipient = somebody(shop), somebody(shop)
        shop.sql(DYING_WORDS)
        answers = [transfer(sender.client, recipient.email) for _ in range(10)]
        assert [each.status_code for each in answers] == [201] * 10
        assert shop.sql("SELECT amount FROM transfers") == [(100,)] * 10
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)


def give_all(users: list[Somebody], number: int) -> list[tuple[str, int, Response]]:
    """Give 1, 2, 3 and so on to the next user; return who gave what, and its answer."""
    sender, recipient = users[number], users[(number + 1) % len(users)]
    return [
        (sender.email, amount, transfer(sender.client, recipient.email, amount))
        for amount in range(1, 31)
    ]


def test_no_transfer_is_made_twice_when_connections_are_killed(
    open_shop: OpenShop,
) -> None:
    with open_shop(**PATIENTLY) as shop, ThreadPoolExecutor() as threads:
        users = [somebody(shop) for _ in range(8)]
        asked = [threads.submit(give_all, users, number) for number in range(8)]
        kills = []
        while not all(each.done() for each in asked):
            time.sleep(0.1)
            kills += shop.sql(KILL_ALL)
        given = [each for some in asked for each in some.result()]
        statuses = Counter(answer.status_code for *_, answer in given)
        assert statuses.keys() <= {201, 503}, statuses
        made = {each[:2] for each in given if each[2].status_code == 201}
        refused = {
            each[:2]: each[2].json()["type"] for each in given if each[:2] not in made
        }
        # One that dies before it was ever used counts as a server that is away.
        assert {*refused.values()} <= {UNKNOWN, "database-unavailable"}
        unknown = {each for each, problem in refused.items() if problem == UNKNOWN}
        rows = shop.sql(
            "SELECT email, amount FROM transfers JOIN users ON users.id = sender_id"
        )
        again = shop.service.log.count("conflict or lost connection in")
        print(f"{sum(n for (n,) in kills)} killed in {len(kills)} rounds,")
        print(f"{len(made)} made, {len(unknown)} unknown, {again} attempts made again")
        assert len(rows) == len({*rows}), "made twice"
        assert made <= {*rows} <= made | unknown
        assert again
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)
