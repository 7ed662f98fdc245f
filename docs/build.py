"""Writes when-does-it-commit.md from rendered projects, so that it cannot drift.

Run it in the repository: `.venv/bin/python docs/build.py`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

# A script finds only what lies beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.template import PROMPTS, ROOT, render

PAGE = ROOT / "docs" / "when-does-it-commit.md"
INTRODUCTION = """\
# When does it commit?

That depends on two answers, `commit` and `pattern`. Here is what each of the four has
in its README, and the same service of the example, `place_order`, as it is rendered:
an order locks its products, decides, and takes all of them from the stock at once. The
code is the asynchronous one with SQLAlchemy; the sync one has no `async` and no
`await`.

What holds in all four: the client hears of success after the COMMIT, never before; a
COMMIT that fails is an error response, and stores nothing; nothing leaks, whatever
happens.

(`docs/build.py` takes this page from rendered projects.)
"""


def passage_of(project: Path) -> str:
    """Return what the README of a project says between its heading and the aliases."""
    readme = (project / "README.md").read_text(encoding="utf-8")
    (passage,) = re.findall(
        r"^## When does it commit\?\n+(.+?)\n+An endpoint takes one kind",
        readme,
        re.M | re.S,
    )
    return str(passage)


def function_of(project: Path, module: str, name: str) -> str:
    """Return the source of a function."""
    source = (project / module).read_text(encoding="utf-8")
    (function,) = (
        ast.get_source_segment(source, node)
        for node in ast.parse(source).body
        if isinstance(node, ast.AsyncFunctionDef) and node.name == name
    )
    return str(function)


def page(bake: Callable[..., Path]) -> str:
    """Return the page; `bake` gives the project of some answers."""
    parts = [INTRODUCTION]
    for pattern in PROMPTS["pattern"]:
        for commit in PROMPTS["commit"]:
            project = bake(commit=commit, pattern=pattern)
            code = function_of(project, "app/orders/service.py", "place_order")
            parts.append(
                f"## `{commit}`, `{pattern}`\n\n{passage_of(project)}\n\n"
                f"`app/orders/service.py`:\n\n```python\n{code}\n```\n"
            )
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    with TemporaryDirectory() as folder:
        text = page(lambda **answers: render(answers, Path(mkdtemp(dir=folder))))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
