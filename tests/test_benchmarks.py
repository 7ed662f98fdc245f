"""What is measured in public can be measured: docs/costs.md, and `benchmarks/`."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from benchmarks import failover, page, several
from benchmarks.figures import Ratio
from benchmarks.instructions import GUARDS, without
from benchmarks.serving import OURS, PEERS, Contender, Service, responses
from benchmarks.workloads import ROWS, WORKLOADS, request, token
from tests.postgres import Server
from tests.service import MIGRATE, run
from tests.template import DEFAULT, ROOT, VARIANTS, Bakery

PEERS_FOLDER = ROOT / "benchmarks" / "peers"
TOKEN = token()
PRODUCT = {"sku": "new", "name": "New", "price": 1, "stock": 1}


def line(id: int, quantity: int = 1) -> dict[str, int]:
    """Return a line of an order."""
    return {"product_id": id, "quantity": quantity}


# More than what is measured, so that no peer saves work by knowing less.
ASKED = {name: make(Random(1), TOKEN) for name, make in WORKLOADS.items()} | {
    "new tags": request(
        "POST", "/products", TOKEN, PRODUCT | {"tags": ["z", "Y", "z"]}
    ),
    "no tags": request("POST", "/products", TOKEN, PRODUCT | {"sku": "bare"}),
    "page": request("GET", "/products?limit=3&offset=998"),
    "search": request("GET", "/products?search=PRODUCT%2099&limit=5", TOKEN),
    "prices": request("GET", "/products?min_price=150&max_price=152", TOKEN),
    "stock": request("GET", "/products?in_stock=false"),
    "tagged": request("GET", "/products?tag=tag+3&limit=2", TOKEN),
    "skip": request(
        "POST",
        "/orders",
        TOKEN,
        {"items": [line(9_999), line(3), line(1_001, 9)], "on_shortage": "skip"},
    ),
}
REFUSED = {
    "unknown product": request("GET", "/products/9999"),
    "no id": request("GET", "/products/0"),
    "no page": request("GET", "/products?limit=101"),
    "no range": request("GET", "/products?min_price=2&max_price=1"),
    "wrong token": request("GET", "/products", "wrong"),
    "no token": request("POST", "/products", "", PRODUCT),
    "taken SKU": request("POST", "/products", TOKEN, PRODUCT | {"sku": "sku-1"}),
    "text for a price": request("POST", "/products", TOKEN, PRODUCT | {"price": "1"}),
    "unknown field": request("POST", "/products", TOKEN, PRODUCT | {"colour": "red"}),
    "unprintable SKU": request("POST", "/products", TOKEN, PRODUCT | {"sku": "a\tb"}),
    "NUL": request("POST", "/products", TOKEN, PRODUCT | {"name": "\0"}),
    "no lines": request("POST", "/orders", TOKEN, {"items": []}),
    "twice": request("POST", "/orders", TOKEN, {"items": [line(1), line(1)]}),
    "order of nothing": request("POST", "/orders", TOKEN, {"items": [line(9_999)]}),
    "shortage": request("POST", "/orders", TOKEN, {"items": [line(1_001, 10_000)]}),
    "all skipped": request(
        "POST", "/orders", TOKEN, {"items": [line(9_999)], "on_shortage": "skip"}
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("io", PEERS)
def test_all_respond_with_the_same_bytes(io: str, bake: Bakery, server: Server) -> None:
    filled = server.create_database()
    run(bake(**DEFAULT, example=True), *MIGRATE, DATABASE_URL=filled)
    server.execute(ROWS, filled)
    ours = bake(**VARIANTS[OURS[io]["sqlalchemy"]], example=True)
    all_of_them = {"ours": Contender(ours, "app.main:app")} | {
        name: Contender(ROOT, f"benchmarks.peers.{module}:app")
        for name, module in PEERS[io].items()
    }
    answers = {}
    for name, contender in all_of_them.items():
        url = server.create_database(template=filled)
        with Service(contender, url) as service:
            answered = responses(service, ASKED)
            refused = responses(service, REFUSED)
        # What is wrong is said in other words.
        answers[name] = answered | {each: refused[each][:4] for each in refused}
    expected = answers.pop("ours")
    assert all(expected[name].startswith((b"200 ", b"201 ")) for name in ASKED)
    assert all(expected[name].startswith(b"4") for name in REFUSED)
    for name, found in answers.items():
        for each in expected:
            assert found[each] == expected[each], f"{name}: {each}"


@pytest.mark.parametrize("io", PEERS)
def test_the_tutorials_peer_differs_in_its_pool_and_its_scope_only(io: str) -> None:
    def lines(peer: str) -> list[str]:
        text = Path(PEERS_FOLDER / f"{PEERS[io][peer]}.py").read_text(encoding="utf-8")
        return text.split('"""', 2)[2].splitlines()

    changed = [
        each
        for each in difflib.unified_diff(lines("a"), lines("b"), n=0, lineterm="")
        if each.startswith("-") and each != "--- "
    ]
    assert len(changed) == 2
    assert "pool_size=15, max_overflow=0" in changed[0]
    assert 'scope="function"' in changed[1]


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_can_be_taken_out(guard: str, bake: Bakery) -> None:
    changed = without(guard, bake(**DEFAULT, example=True))
    assert changed
    for text in changed.values():
        ast.parse(text)


def test_nothing_is_concluded_when_rounds_differ_more_than_services() -> None:
    ones = [10.0] * 31
    steady = Ratio.of([12.0] * 31, ones)
    assert steady.shows_a_difference
    assert str(steady) == "**1.20** (1.20 to 1.20)"
    noisy = Ratio.of([12.0] * 7 + [18.0] * 12 + [8.0] * 12, ones)
    assert not noisy.shows_a_difference
    assert str(noisy) == "no difference shown (0.80 to 1.80)"


def test_the_page_has_the_figures_that_are_stored() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.page(text) == text, "run .venv/bin/python -m benchmarks.page"
    for name, drawn in page.plots().items():
        stored = (page.PLOTS / name).read_text(encoding="utf-8")
        assert stored == drawn, "run .venv/bin/python -m benchmarks.page"


@pytest.mark.parametrize("command", [failover, several], ids=["failover", "several"])
def test_the_page_of_a_command_has_the_figures_that_are_stored(
    command: ModuleType,
) -> None:
    text = command.PAGE.read_text(encoding="utf-8")
    assert command.page(text) == text, f"run .venv/bin/python -m {command.__name__}"
