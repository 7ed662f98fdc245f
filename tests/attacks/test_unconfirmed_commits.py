"""The connection breaks in a COMMIT: it may be saved, and is never done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres import Server
from tests.shop import (
    ADA,
    PLENTY,
    POOL_SIZE,
    UNKNOWN,
    WRONG_BALANCES,
    OpenShop,
    assert_is_whole,
    assert_tells_nothing,
    create,
    opened_through_a_proxy,
    order,
    register,
    somebody,
    transfer,
)

pytestmark = pytest.mark.slow

# The first COMMIT of a transfer kills its own connection; the sequence counts them all.
DEADLY_COMMIT = """
CREATE SEQUENCE commits;
CREATE FUNCTION die_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('commits') = 1 THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER die AFTER INSERT ON transfers
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die_once();
"""
# How the server says it.
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


def test_a_transfer_is_not_made_again_if_it_may_be_saved(open_shop: OpenShop) -> None:
    with open_shop() as shop:
        sender, recipient = somebody(shop), somebody(shop)
        shop.sql(DEADLY_COMMIT)
        lost = transfer(sender.client, recipient.email)
        assert lost.status_code == 503, lost.text
        assert lost.json()["type"].endswith("commit-outcome-unknown")
        assert "Retry-After" not in lost.headers
        assert shop.sql("SELECT last_value FROM commits") == [(1,)]
        assert shop.count("transfers") == 0
        assert transfer(sender.client, recipient.email).status_code == 201
        assert shop.sql(WRONG_BALANCES) == []
        assert_is_whole(shop)


def test_what_is_saved_and_never_confirmed_is_not_refused_and_not_done_again(
    project: Path, server: Server, stocked: str
) -> None:
    settings = {"DATABASE_POOL_SIZE": POOL_SIZE}
    with opened_through_a_proxy(project, server, stocked, **settings) as (shop, proxy):
        client = shop.client()
        giver, taker = somebody(shop), somebody(shop)
        proxy.unsaid = COMMITTED
        answers = [
            create(client),
            order(client, PLENTY),
            transfer(giver.client, taker.email),
            register(client, ADA),
        ]
        proxy.unsaid = b""
        assert [each.status_code for each in answers] == [503] * 4
        assert {each.json()["type"] for each in answers} == {UNKNOWN}
        assert [each for each in answers if "Retry-After" in each.headers] == []
        assert_tells_nothing(answers)
        assert shop.count("products WHERE name = 'New'") == 1
        assert shop.sql("SELECT quantity FROM order_items") == [(1,)]
        assert shop.sql("SELECT amount FROM transfers") == [(100,)]
        assert shop.sql(WRONG_BALANCES) == []
        assert register(client, ADA).status_code == 409
        assert_is_whole(shop)
