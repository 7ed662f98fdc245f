"""An owner changes a model: the migration that Alembic writes is clean, and works."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.service import run
from tests.template import SWITCHES, Bakery

pytestmark = pytest.mark.slow

MODELS = {
    "sqlalchemy": '''

class Supplier(Base):
    """Who delivers."""

    __tablename__ = "suppliers"

    name: Mapped[str] = mapped_column(String(50), unique=True)
''',
    "sqlmodel": '''

class Supplier(Base, table=True):
    """Who delivers."""

    __tablename__ = "suppliers"

    name: str = Field(max_length=50, unique=True)
''',
}


@pytest.mark.parametrize("io", SWITCHES["io"])
@pytest.mark.parametrize("orm", SWITCHES["orm"])
def test_a_generated_migration_is_clean_and_works(
    io: str, orm: str, bake: Bakery, tmp_path: Path
) -> None:
    project = shutil.copytree(bake(io=io, orm=orm), tmp_path / "project")
    models = project / "app" / "products" / "models.py"
    models.write_text(models.read_text() + MODELS[orm])
    python = (sys.executable, "-m")
    run(project, *python, "alembic", "upgrade", "head")
    run(project, *python, "alembic", "revision", "--autogenerate", "-m", "Suppliers")
    run(project, *python, "alembic", "upgrade", "head")
    run(project, *python, "alembic", "check")
    run(project, *python, "ruff", "check", "--no-cache", ".")
    run(project, *python, "ruff", "format", "--no-cache", "--check", ".")
    run(project, *python, "mypy", "--cache-dir", os.devnull)
    run(project, *python, "pytest", "tests/test_migrations.py")
