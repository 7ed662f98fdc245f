"""Migrations, on a database of their own: up, down, up again, and no drift (S20)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.db.migrations import alembic_config
from tests.conftest import DATABASES, fresh_database
from tests.support import make_settings


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


def test_the_sql_can_be_printed_for_review(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    command.upgrade(config, "head", sql=True)
    printed = capsys.readouterr().out
    assert "INSERT INTO alembic_version (version_num) VALUES ('0001')" in printed
