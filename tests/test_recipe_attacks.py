"""Recipes when everything breaks: a small version of what their pages tell of."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random
from uuid import uuid4

import pytest
from httpx2 import Response

from tests.postgres import Server
from tests.proxy import Proxy
from tests.service import MIGRATE, Service, run
from tests.shop import UNKNOWN
from tests.template import Answers
from tests.test_features import tools as tools
from tests.test_recipes import Prepare
from tests.test_recipes import prepare as prepare
from tests.test_recipes import shelf as shelf

pytestmark = [pytest.mark.slow, pytest.mark.costly]

CLIENTS = 4
CUTS = 40  # of all clients together
# How each driver says it, and how the server confirms it.
COMMIT = {"async": b"COMMIT;\x00", "sync": b"Q\x00\x00\x00\x0bCOMMIT\x00"}
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


def test_a_repeated_request_is_done_once(
    variant: Answers, prepare: Prepare, server: Server
) -> None:
    project = prepare(variant, "idempotency-key")
    url = server.create_database()
    run(project, *MIGRATE, DATABASE_URL=url)
    # What a connection loses: nothing, its COMMIT, or what the server says of it.
    losses = (b"", COMMIT[variant["io"]], COMMITTED)
    settings = {"ENVIRONMENT": "test", "DATABASE_POOL_SIZE": CLIENTS}
    outcomes = Counter[str]()
    responses: dict[str, Response] = {}
    with (
        Proxy(url) as proxy,
        Service(project, DATABASE_URL=proxy.url, **settings) as service,
    ):

        def work(seed: int) -> None:
            random, client = Random(seed), service.client()
            while outcomes[UNKNOWN] < CUTS:
                name, key = uuid4().hex, {"Idempotency-Key": str(uuid4())}
                while name not in responses:
                    proxy.unsaid = random.choice(losses)
                    data = {"name": name}
                    response = client.post("/categories/once", json=data, headers=key)
                    if response.status_code == 201:
                        responses[name] = response
                    else:
                        assert response.status_code == 503, response.text
                        outcomes[response.json()["type"]] += 1

        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(work, range(CLIENTS)))
    rows = server.execute("SELECT name, id FROM categories", url)
    assert len(rows) == len(responses)
    assert dict(rows) == {name: each.json()["id"] for name, each in responses.items()}
    stored = server.execute("SELECT count(*) FROM idempotent_requests", url)
    assert stored == [(len(rows),)]
    assert outcomes.keys() == {UNKNOWN}
    print(len(rows), "requests", dict(outcomes))
