"""Imports point one way, and the guards of our sessions leave others alone."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from app.config import ROOT
from tests.session.probe import Base, Note

APP = ROOT / "app"
# What `app/db` may import of the app, besides itself.
BELOW = ["config", "context", "logs"]


def imports_of(path: Path) -> Iterator[str]:
    """Give the full name of all that a module imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)


def is_above(name: str) -> bool:
    """Whether `app/db` must not import this."""
    package, _, rest = name.partition(".")
    is_ours = package == "app" and rest.split(".")[0] not in {"", "db", *BELOW}
    return is_ours or package in {"fastapi", "starlette"}


def test_the_session_layer_imports_no_web_framework_and_no_feature() -> None:
    below = [APP / f"{name}.py" for name in BELOW]
    above = [
        (path.name, name)
        for path in [*APP.glob("db/**/*.py"), *below]
        for name in imports_of(path)
        if is_above(name)
    ]
    assert above == []


def test_no_two_packages_import_each_other() -> None:
    packages = {path.parent.name for path in APP.glob("*/__init__.py")}
    arrows: dict[str, set[str]] = {package: set() for package in packages}
    for package in packages:
        for path in APP.glob(f"{package}/**/*.py"):
            for name in imports_of(path):
                top, _, rest = name.partition(".")
                imported = rest.split(".")[0]
                if top == "app" and imported in packages - {package}:
                    arrows[package].add(imported)
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle


def test_a_plain_session_is_not_guarded() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Note(text="child", parent=Note(text="parent")))
        session.commit()
        session.expunge_all()
        child = session.scalars(select(Note).where(Note.text == "child")).one()
        assert child.parent is not None  # loaded lazily
        child.parent.text = "never committed"
        session.flush()
    engine.dispose()
