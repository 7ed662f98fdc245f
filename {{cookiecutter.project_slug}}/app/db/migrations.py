"""Migrations from inside the app: apply them, and know which are outdated."""

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


def outdated_revisions(settings: Settings) -> set[str]:
    """Return the ids of all migrations but the newest, as the files have them."""
    script = ScriptDirectory.from_config(alembic_config(settings))
    revisions = {each.revision for each in script.walk_revisions()}
    return revisions - set(script.get_heads())
