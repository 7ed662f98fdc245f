"""Several processes on one database sell nothing twice, and are replaced unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evidence import note
from tests.failover import MANY, Clients
from tests.machines import (
    CHANGES,
    PATIENTLY_LOCKED,
    VERSIONS,
    deploy,
    next_release,
    sell,
    served,
    what_is_missing,
)
from tests.postgres import Server
from tests.shop import new_product
from tests.template import DEFAULT, EXTREMES, Answers, Bakery, name_of

pytestmark = pytest.mark.slow

FEW = Clients(writers=8, readers=2, exporters=1, fulfillers=1)


@pytest.mark.rare
@pytest.mark.parametrize("variant", EXTREMES, ids=name_of)
@pytest.mark.parametrize(
    ("machines", "workers"), [(1, 1), (1, 2), (1, 3), (1, 4), (2, 2)]
)
def test_several_processes_sell_nothing_twice(
    machines: int, workers: int, variant: Answers, bake: Bakery, server: Server
) -> None:
    if machines > 1 and (missing := what_is_missing()):
        pytest.skip(missing)
    project = bake(**variant, example=True)
    with served(project, server, machines, workers, **PATIENTLY_LOCKED) as site:
        sale = sell(site)
    print(sale)
    assert sale.statuses.keys() == {201, 409}
    assert sale.left == [0, 0]
    assert sale.sold == sale.stored == sale.stock
    assert sale.odd == []
    # All that they may have, and PostgreSQL has refused none.
    assert sale.connections == sale.limit


@pytest.mark.parametrize(
    ("clients", "variant"),
    [
        pytest.param(FEW, DEFAULT, id=f"few-{name_of(DEFAULT)}"),
        *(
            pytest.param(MANY, each, id=f"many-{name_of(each)}", marks=pytest.mark.rare)
            for each in EXTREMES
        ),
    ],
)
def test_a_rolling_deploy_fails_no_request(
    clients: Clients, variant: Answers, bake: Bakery, server: Server, tmp_path: Path
) -> None:
    if missing := what_is_missing():
        pytest.skip(missing)
    project = bake(**variant, example=True)
    release = next_release(project, tmp_path, CHANGES["a column and an index"])
    with served(project, server, machines=2, workers=2) as site:
        deployment = deploy(site, release, "drained", clients)
        new = new_product(weight=7)
        created = site.shop.client().post("/products", json=new)
        weights = site.shop.sql("SELECT DISTINCT weight FROM products ORDER BY weight")
    print(deployment)
    outcome = deployment.outcome
    note(acknowledged=outcome.acknowledged, lost=outcome.lost)
    assert deployment.failed == {}
    assert outcome.odd == []
    assert outcome.acknowledged == outcome.writes > 0
    assert outcome.lost == outcome.doubled == outcome.refused_and_stored == 0
    assert outcome.wrong_totals == outcome.fulfilments_left == 0
    assert 0 < deployment.connections <= deployment.limit
    assert deployment.versions == [VERSIONS[1]] * 2
    assert created.json()["weight"] == 7
    assert weights == [(0,), (7,)]
