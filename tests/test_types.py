"""The type checker knows which session may write."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.template import COMBINATIONS, Bakery, name_of

pytestmark = pytest.mark.slow

WRITING_WHILE_READING = """
from app.db.session import ReadSession, WriteSession
from app.products.models import Product
from app.products.repository import ProductReadRepository, ProductRepository


def read(session: ReadSession) -> ProductReadRepository:
    return ProductReadRepository(session)


def write(session: WriteSession) -> ProductRepository:
    read(session)
    return ProductRepository(session)


def write_while_reading(session: ReadSession) -> ProductRepository:
    return ProductRepository(session)
"""
REFUSED = 'Argument 1 to "ProductRepository" has incompatible type "ReadSession"'


@pytest.mark.parametrize("answers", [COMBINATIONS[0], COMBINATIONS[-1]], ids=name_of)
def test_a_read_session_is_refused_where_something_is_written(
    answers: dict[str, str], bake: Bakery, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(bake(**answers, example=True), project)
    (project / "app" / "mistake.py").write_text(WRITING_WHILE_READING)
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "app/mistake.py"],
        cwd=project,
        capture_output=True,
        encoding="utf-8",
    )
    assert REFUSED in ended.stdout
    assert "Found 1 error" in ended.stdout
