"""Removes folders that the answers left empty, and says what to do next.

Files that an answer leaves out are not rendered, but their folders are. Without this
hook the same files stand in the same places.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from pathlib import Path

# Nothing else is looked at: the project may be rendered over an existing one, whose
# empty folders are its owner's (and git's own, in a fresh repository).
for package in ("app", "migrations", "tests"):
    for folder, _, _ in os.walk(package, topdown=False):
        with contextlib.suppress(OSError):  # It is not empty.
            Path(folder).rmdir()

# cruft renders in the temporary folder, to compare: nobody goes on there.
project = Path.cwd().resolve()
if Path(tempfile.gettempdir()).resolve() not in project.parents:
    print(
        f"""
Next, with uv (README.md has the commands for pip):

    cd {shlex.quote(str(project))}
    uv sync
    uv run uvicorn app.main:app
"""
    )
