"""Migrations from inside the app: apply them, and know the newest."""

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.config import ROOT, Settings


def alembic_config(settings: Settings) -> Config:
    """Return Alembic's configuration, for the database of `settings`."""
    config = Config(toml_file=ROOT / "pyproject.toml")
    config.attributes["settings"] = settings
    return config


def upgrade(settings: Settings) -> None:
    """Apply all pending migrations; `alembic upgrade head` does the same."""
    command.upgrade(alembic_config(settings), "head")


def newest_revision(settings: Settings) -> str | None:
    """Return the newest migration's id, as the files have it."""
    return ScriptDirectory.from_config(alembic_config(settings)).get_current_head()
