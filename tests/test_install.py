"""A stranger's first minutes: a project is installed and run as its README says."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service, run
from tests.shop import register, sign_in
from tests.template import SWITCHES, Bakery

pytestmark = pytest.mark.slow

BASH = ("bash", "-euo", "pipefail", "-c")
MINUTES = 600.0  # At most that many seconds, most of them pip's.


def commands_under(heading: str, project: Path) -> str:
    """Return the commands that stand under a heading of the project's README."""
    readme = (project / "README.md").read_text(encoding="utf-8")
    (commands,) = re.findall(rf"^## {heading}\n+```sh\n(.+?)^```$", readme, re.M | re.S)
    return str(commands)


@pytest.fixture(scope="module", params=SWITCHES["io"])
def project(
    request: pytest.FixtureRequest,
    bake: Bakery,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A project of which nothing is installed yet."""
    folder = tmp_path_factory.mktemp("stranger") / "project"
    return shutil.copytree(bake(io=request.param), folder)


@pytest.fixture(scope="module")
def service(project: Path) -> Iterator[Service]:
    """The project, installed and served by the README's commands as they stand."""
    # A machine has a python3, and nothing of what these tests have installed for it.
    python = project.parent / "python3"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o700)
    path = os.pathsep.join([str(python.parent), os.defpath])
    commands = (*BASH, commands_under("Run", project))
    with Service(project, *commands, patience=MINUTES, PATH=path) as service:
        yield service


def test_a_new_project_serves_the_shop_at_once(service: Service) -> None:
    stranger = service.client()
    assert register(stranger, "ada@example.com").json()["balance"] == 10_000
    token = sign_in(stranger, "ada@example.com").json()["access_token"]
    client = service.client(token)
    product = {"sku": "A-1", "name": "Anvil", "price": 4_200, "stock": 3}

    created = client.post("/products", json=product | {"tags": ["heavy"]})
    assert created.status_code == 201
    assert created.json() == product | {"id": 1, "tags": ["heavy"]}
    assert stranger.get("/products/1").json() == created.json()
    assert stranger.get("/products").json()["items"] == [created.json()]

    placed = client.post("/orders", json={"items": [{"product_id": 1, "quantity": 2}]})
    assert placed.status_code == 201
    assert placed.json()["total"] == 8_400
    assert client.get(f"/orders/{placed.json()['id']}").status_code == 200
    left = created.json() | {"stock": 1}
    assert client.get("/products").json()["items"] == [left | {"ordered": True}]


def test_a_new_project_says_how_it_is_and_what_it_can_do(service: Service) -> None:
    for path in ("/health/live", "/health/ready", "/health/database", "/docs"):
        assert service.client().get(path).status_code == 200, path


def test_a_new_project_answers_mistakes_with_problems(service: Service) -> None:
    answer = service.client().get("/products/999")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["instance"] == "/products/999"


def test_a_new_project_passes_its_tests(project: Path, service: Service) -> None:
    assert service.url  # It has been installed.
    commands = f". .venv/bin/activate\n{commands_under('Test', project)}"
    run(project, *BASH, commands, PATH=os.defpath)
