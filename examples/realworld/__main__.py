"""Make Conduit of any variant: a project without the shop, and our files over it.

    .venv/bin/python -m examples.realworld ../conduit sync-sqlmodel-manual-repository

Without a variant, it is async-sqlalchemy-auto-repository.
"""

from __future__ import annotations

import shutil
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import Template

from tests.follow import follow
from tests.template import DEFAULT, VARIANTS, Answers, name_of, render, render_page

HERE = Path(__file__).resolve().parent
FILES = HERE / "files"
ANSWERS = {
    "project_name": "Conduit",
    "project_slug": "conduit",
    "description": "RealWorld's backend.",
    "example": False,
}


def make(project: Path, variant: Answers) -> None:
    """Make the project of a variant, at a path where nothing is."""
    with TemporaryDirectory() as folder:
        made = render({**variant, **ANSWERS}, Path(folder))
        lay_over(made, variant)
        shutil.move(made, project)


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


def main() -> None:
    """Make the project that the command line asks for."""
    parser = ArgumentParser(
        prog="python -m examples.realworld",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("project", type=Path, help="where nothing is yet")
    parser.add_argument(
        "variant",
        nargs="?",
        default=name_of(DEFAULT),
        metavar="VARIANT",
        choices=VARIANTS,
    )
    options = parser.parse_args()
    if options.project.exists():
        parser.error(f"{options.project} exists")
    make(options.project, VARIANTS[options.variant])


if __name__ == "__main__":
    main()
