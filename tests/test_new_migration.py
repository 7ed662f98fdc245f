"""An owner changes a model: the migration that Alembic writes is clean, and works."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.postgres import Server
from tests.service import MIGRATE, run
from tests.template import EXTREMES, ROOT, Answers, Bakery, name_of

pytestmark = pytest.mark.slow

MODELS = {
    "sqlalchemy": '''\
"""Who delivers."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Enum, ForeignKey, String, func, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Updated, Versioned

SIZES = Enum("s", "l", name="size", native_enum=False, create_constraint=True)


class Supplier(Updated, Versioned, Base):
    """Who delivers."""

    __tablename__ = "suppliers"
    __table_args__ = (CheckConstraint("name <> ''", name="name_not_empty"),)

    name: Mapped[str] = mapped_column(String(50), unique=True)
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    is_active: Mapped[bool] = mapped_column(server_default=true())
    size: Mapped[str] = mapped_column(SIZES, default="s")
    details: Mapped[dict[str, Any]] = mapped_column(
        JSON().with_variant(JSONB(), "postgresql"), default=dict
    )
    tags: Mapped[list[str]] = mapped_column(
        JSONB().with_variant(JSON(), "sqlite"), default=list
    )
    product_id: Mapped[int | None] = mapped_column(
        ForeignKey("products.id"), index=True
    )
''',
    "sqlmodel": '''\
"""Who delivers."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, Enum, func, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from app.db.base import Base, Updated, Versioned

SIZES: Any = Enum("s", "l", name="size", native_enum=False, create_constraint=True)
DETAILS: Any = JSON().with_variant(JSONB(), "postgresql")
TAGS: Any = JSONB().with_variant(JSON(), "sqlite")


class Supplier(Updated, Versioned, Base, table=True):
    """Who delivers."""

    __tablename__ = "suppliers"
    __table_args__ = (CheckConstraint("name <> ''", name="name_not_empty"),)

    name: str = Field(max_length=50, unique=True)
    since: datetime = Field(sa_column_kwargs={"server_default": func.now()})
    is_active: bool = Field(
        default=None, nullable=False, sa_column_kwargs={"server_default": true()}
    )
    size: str = Field(default="s", sa_type=SIZES)
    details: dict[str, Any] = Field(default_factory=dict, sa_type=DETAILS)
    tags: list[str] = Field(default_factory=list, sa_type=TAGS)
    product_id: int | None = Field(default=None, foreign_key="products.id", index=True)
''',
}
# What is changed later, when the table has rows.
LATER = {"sqlalchemy": ("String(50)", "String(60)"), "sqlmodel": ("=50", "=60")}
# Each ORM and each kind of driver on each database.
GENERATED = [
    ("async", "sqlalchemy", "sqlite"),
    ("sync", "sqlalchemy", "postgresql"),
    ("async", "sqlmodel", "postgresql"),
    ("sync", "sqlmodel", "sqlite"),
]
PLANTED = "tests/test_suppliers.py"
CHECKED = ("tests/test_migrations.py", "tests/test_models.py", PLANTED)
AT_ONCE = 10
# What must run outside a transaction, and waits for all that are open.
CONCURRENTLY = '''\
"""An index."""

from alembic import op

revision, down_revision = "0002", "0001"
branch_labels = depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_by_hand", "orders", ["total"], postgresql_concurrently=True)
'''


@pytest.mark.parametrize(("io", "orm", "kind"), GENERATED)
def test_a_generated_migration_is_clean_and_works_on_both_databases(
    io: str,
    orm: str,
    kind: str,
    bake: Bakery,
    server: Server,
    mypy_cache: Path,
    tmp_path: Path,
) -> None:
    project = shutil.copytree(bake(io=io, orm=orm), tmp_path / "project")
    shutil.copy(ROOT / "tests/planted/suppliers.py", project / PLANTED)
    models = project / "app" / "suppliers" / "models.py"
    models.parent.mkdir()
    (models.parent / "__init__.py").write_text('"""Suppliers."""\n')
    models.write_text(MODELS[orm])
    url = f"sqlite:///{tmp_path}/database.db"
    if kind == "postgresql":
        url = server.create_database()

    python = (sys.executable, "-m")
    alembic = (*python, "alembic")

    def generate(name: str) -> None:
        run(project, *alembic, "upgrade", "head", DATABASE_URL=url)
        command = (*alembic, "revision", "--autogenerate", "-m", name)
        run(project, *command, DATABASE_URL=url)

    generate("Suppliers")
    models.write_text(models.read_text().replace(*LATER[orm]))
    generate("Longer names")
    run(project, *MIGRATE, DATABASE_URL=url)
    run(project, *alembic, "check", DATABASE_URL=url)
    run(project, *python, "ruff", "check", "--no-cache", ".")
    run(project, *python, "ruff", "format", "--no-cache", "--check", ".")
    run(project, *python, "mypy", "--cache-dir", mypy_cache)
    run(project, *python, "pytest", *CHECKED, TEST_DATABASE_URL=server.url)


@pytest.mark.parametrize("variant", EXTREMES, ids=name_of)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_who_migrate_at_once_take_turns(
    variant: Answers, kind: str, bake: Bakery, server: Server, tmp_path: Path
) -> None:
    project = shutil.copytree(bake(**variant, example=True), tmp_path / "project")
    url, revisions = f"sqlite:///{tmp_path}/database.db", ["0001"]
    if kind == "postgresql":
        url, revisions = server.create_database(), ["0001", "0002"]
        (project / "migrations/versions/0002_index.py").write_text(CONCURRENTLY)

    def migrate(_: int) -> str:
        return run(project, *MIGRATE, DATABASE_URL=url)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        logs = "".join(threads.map(migrate, range(AT_ONCE)))
    for revision in revisions:
        assert logs.count(f"applied {revision}: ") == 1, logs
