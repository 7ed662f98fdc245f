"""Migrations, on a database of their own: up, down, up again, and no drift."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint

from app.db.base import metadata
from app.db.migrations import alembic_config, upgrade
from tests.conftest import DATABASES, fresh_database
from tests.support import POOLER, make_settings


@pytest.fixture(params=DATABASES)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Config]:
    """Give Alembic's configuration for an empty database."""
    with fresh_database(request.param, tmp_path) as url:
        yield alembic_config(make_settings(url))


def test_there_is_one_head(config: Config) -> None:
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1


def test_up_down_and_up_again(config: Config) -> None:
    command.upgrade(config, "head")
    command.downgrade(config, "base")
    command.upgrade(config, "head")
    command.current(config, check_heads=True)


def test_the_models_are_what_the_migrations_make(config: Config) -> None:
    command.upgrade(config, "head")
    command.check(config)


@pytest.mark.parametrize("kind", DATABASES)
def test_timeouts_do_not_stop_a_migration(kind: str, tmp_path: Path) -> None:
    timeouts = {"database_statement_timeout": 0.001, "database_lock_timeout": 0}
    with fresh_database(kind, tmp_path) as url:
        upgrade(make_settings(url, **timeouts))


def test_migrations_may_have_a_url_of_their_own(tmp_path: Path) -> None:
    if "postgresql" not in DATABASES:
        pytest.skip("only PostgreSQL has accounts and poolers")
    if POOLER == "transaction":
        pytest.skip("a URL of its own leads past the pooler")
    nowhere = "postgresql://somebody@127.0.0.1:1/nothing"
    with fresh_database("postgresql", tmp_path) as url:
        own = {"database_pooler": "transaction", "database_migration_url": url}
        upgrade(make_settings(nowhere, **own))
        command.current(alembic_config(make_settings(url)), check_heads=True)


def test_the_sql_can_be_printed_for_review(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    command.upgrade(config, "head", sql=True)
    printed = capsys.readouterr().out
    head = ScriptDirectory.from_config(config).get_current_head()
    assert f"'{head}'" in printed
    # Alembic compares no CHECK constraints.
    for table in metadata.tables.values():
        for constraint in table.constraints:
            if isinstance(constraint, CheckConstraint):
                assert str(constraint.name) in printed
