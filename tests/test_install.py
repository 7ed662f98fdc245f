"""A stranger's first minutes: a project is installed and run as its README says."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import BASH, PROGRAMS, Service, run
from tests.shop import register, sign_in
from tests.template import Bakery

pytestmark = pytest.mark.slow

MINUTES = 600.0  # At most that many seconds, most of them pip's.


def commands_under(heading: str, project: Path) -> list[str]:
    """Return the blocks of commands that stand under a heading of the README."""
    readme = (project / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.+?)^## ", readme, re.M | re.S)
    return re.findall(r"^```sh\n(.+?)^```$", section, re.M | re.S)


@pytest.fixture(scope="module", params=[("async", "uv"), ("sync", "pip")], ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    """How the project's endpoints run, and what installs it."""
    io, installer = request.param
    return io, installer


@pytest.fixture(scope="module")
def project(
    way: tuple[str, str], bake: Bakery, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A project of which nothing is installed yet."""
    folder = tmp_path_factory.mktemp("stranger") / "project"
    return shutil.copytree(bake(io=way[0]), folder)


@pytest.fixture(scope="module")
def service(way: tuple[str, str], project: Path) -> Iterator[Service]:
    """The project, installed and served by the README's commands as they stand."""
    # A machine has a python3 and a uv, and nothing of what these tests have installed.
    uv = shutil.which("uv", path=PROGRAMS)
    for name, program in {"python3": sys.executable, "uv": uv}.items():
        script = project.parent / name
        script.write_text(f'#!/bin/sh\nexec "{program}" "$@"\n')
        script.chmod(0o700)
    path = os.pathsep.join([str(project.parent), os.defpath])
    by_uv, by_pip = commands_under("Run", project)
    commands = by_uv if way[1] == "uv" else by_pip
    with Service(project, *BASH, commands, patience=MINUTES, PATH=path) as service:
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


# With uv, tests/test_ci.py does it.
@pytest.mark.parametrize("way", [("sync", "pip")], ids="-".join, indirect=True)
def test_a_new_project_passes_its_tests(project: Path, service: Service) -> None:
    assert service.url  # It has been installed.
    (commands,) = commands_under("Test", project)
    run(project, *BASH, f". .venv/bin/activate\n{commands}", PATH=os.defpath)
