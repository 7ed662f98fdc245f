"""Render variants from the working tree, and see whether each passes its own checks.

    .venv/bin/python -m tests.try sync-sqlmodel-manual-unit_of_work -k commit

The tests run on SQLite, or with `--postgresql` on a server of our own as well. Options
that are not listed go to pytest: `-x`, `-vv`, `--maxfail=1`.
"""

from __future__ import annotations

import fnmatch
import os
import shlex
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from tests.postgres import Cluster
from tests.service import environment_with
from tests.template import ROOT, VARIANTS, Answers, render

CHECKS = {
    "ruff format": "ruff format --no-cache --check .",
    "ruff check": "ruff check --no-cache .",
    "mypy": "mypy",
}
# What mypy learns of the libraries is kept: it is most of its time.
MYPY_CACHE = ROOT / ".mypy_cache" / "rendered"


def variants_like(pattern: str) -> list[str]:
    """Return the names of the variants that a name, a pattern or `all` stands for."""
    found = fnmatch.filter(VARIANTS, "*" if pattern == "all" else pattern)
    if not found:
        names = "\n".join(VARIANTS)
        raise ArgumentTypeError(
            f"no variant is called {pattern!r}; take one of these, a pattern such as "
            f"'sync-*', or all:\n{names}"
        )
    return found


def parser() -> ArgumentParser:
    """Return what reads the command line."""
    parser = ArgumentParser(
        prog="python -m tests.try",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("variants", type=variants_like, nargs="+", metavar="VARIANT")
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="as pytest's")
    parser.add_argument("--bare", action="store_true", help="without the example")
    parser.add_argument(
        "--postgresql", action="store_true", help="test on PostgreSQL as well"
    )
    parser.add_argument(
        "--check", action="store_true", help="only ruff and mypy, no tests"
    )
    return parser


@contextmanager
def database_settings(wanted: bool) -> Iterator[dict[str, str]]:
    """Give what makes a project's tests run on PostgreSQL as well, if that is wanted.

    The server is TEST_DATABASE_URL's, or one that lives as long as this.
    """
    if not wanted:
        yield {}
    elif url := os.environ.get("TEST_DATABASE_URL"):
        yield {"TEST_DATABASE_URL": url}
    else:
        with Cluster() as cluster:
            yield {"TEST_DATABASE_URL": cluster.url}


def passes(project: Path, name: str, command: str, **settings: str) -> bool:
    """Run a command in a project, print a line on it, and all it says if it fails."""
    begin = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=project,
        env=environment_with(MYPY_CACHE_DIR=MYPY_CACHE, **settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    took = time.monotonic() - begin
    passed = ended.returncode == 0
    lines = ended.stdout.strip().splitlines()
    conclusion = lines[-1].strip("= ") if lines else ""
    result = "passed" if passed else "FAILED"
    print(f"{result} {took:6.1f} s  {name}: {conclusion}", flush=True)
    if not passed:
        print(ended.stdout)
    return passed


def main() -> int:
    """Try each variant; return 0 if all of them pass."""
    options, others = parser().parse_known_args()
    commands = dict(CHECKS)
    if not options.check:
        chosen = ["-k", options.k] if options.k else []
        pytest = ["pytest", "-q", "-p", "no:cacheprovider", *chosen, *others]
        commands["pytest"] = shlex.join(pytest)
    folder = Path(tempfile.mkdtemp(prefix="try-"))
    passed = True
    with database_settings(options.postgresql) as settings:
        for variant in dict.fromkeys(chain.from_iterable(options.variants)):
            answers: Answers = {**VARIANTS[variant], "example": not options.bare}
            place = folder / variant
            place.mkdir()
            project = render(answers, place)
            print(f"{variant}: {project}", flush=True)
            for name, command in commands.items():
                passed &= passes(project, name, command, **settings)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
