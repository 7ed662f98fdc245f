"""The type checker knows which session may write."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import environment_with
from tests.template import EXTREMES, ROOT, Bakery, name_of

pytestmark = pytest.mark.slow

MISTAKE = ROOT / "tests" / "planted" / "write_while_reading.py"
REFUSED = 'Argument 1 to "ProductRepository" has incompatible type "ReadSession"'


@pytest.mark.parametrize("answers", EXTREMES, ids=name_of)
def test_a_read_session_is_refused_where_something_is_written(
    answers: dict[str, str], bake: Bakery, mypy_cache: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(bake(**answers, example=True), project)
    shutil.copy(MISTAKE, project / "app" / "mistake.py")
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "app/mistake.py"],
        cwd=project,
        env=environment_with(MYPY_CACHE_DIR=mypy_cache),
        capture_output=True,
        encoding="utf-8",
    )
    assert REFUSED in ended.stdout
    assert "Found 1 error" in ended.stdout
