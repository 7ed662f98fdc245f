"""Make Conduit of any variant: a project without the shop, and our files over it.

    .venv/bin/python -m examples.realworld ../conduit sync-sqlmodel-manual-repository

Without a variant it is async-sqlalchemy-auto-repository. Says where the project is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import Template

from tests.template import DEFAULT, VARIANTS, Answers, name_of, render, render_page
from tests.test_features import follow

HERE = Path(__file__).resolve().parent
FILES = HERE / "files"
ANSWERS = {
    "project_name": "Conduit",
    "project_slug": "conduit",
    "description": "RealWorld's backend.",
    "example": False,
}


def lay_over(project: Path, variant: Answers) -> None:
    """Put Conduit's files into a rendered project, and change what they need."""
    for source in sorted(FILES.rglob("*.py*")):
        name = Template(source.name).render(cookiecutter=variant)
        if name:
            target = project / source.parent.relative_to(FILES) / name
            target.parent.mkdir(exist_ok=True)
            target.write_text(render_page(source, variant), encoding="utf-8")
    with TemporaryDirectory() as folder:
        page = Path(folder) / "changes.md"
        page.write_text(render_page(HERE / page.name, variant), encoding="utf-8")
        follow(str(page), project)


def make(folder: Path, variant: Answers) -> Path:
    """Return the project of a variant, made below a folder."""
    project = render({**variant, **ANSWERS}, folder)
    lay_over(project, variant)
    return project


if __name__ == "__main__":
    folder, name = Path(sys.argv[1]), (sys.argv[2:] or [name_of(DEFAULT)])[0]
    folder.mkdir()
    print(make(folder, VARIANTS[name]))
