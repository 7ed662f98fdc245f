"""What an owner does with git, cookiecutter and cruft, apart from our own settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.template import ROOT, environment

COOKIECUTTER = (sys.executable, "-m", "cookiecutter")
CRUFT = (sys.executable, "-m", "cruft")


class Run:
    """Runs commands that have to succeed, with a home of their own."""

    def __init__(self, home: Path) -> None:
        """Keep in the home whatever the commands store; `variables` may be changed."""
        self.variables = environment(home) | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        for role in ("AUTHOR", "COMMITTER"):
            self.variables |= {
                f"GIT_{role}_NAME": "Owner",
                f"GIT_{role}_EMAIL": "owner@localhost",
            }

    def __call__(self, folder: Path, *command: str | Path, typed: str = "") -> str:
        """Return what a command in a folder says, to whom this is typed."""
        ended = subprocess.run(
            command,
            cwd=folder,
            env=self.variables,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout


def commit(run: Run, folder: Path) -> None:
    """Commit all that is in a folder, and make it a repository first if need be."""
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message=All of it")


def copy_template(run: Run, folder: Path) -> None:
    """Copy the template into a folder: as it lies here, committed or not."""
    chosen = ("--cached", "--others", "--exclude-standard")
    for name in run(ROOT, "git", "ls-files", "-z", *chosen).split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def publish(run: Run, template: Path, forge: Path) -> None:
    """Let gh:org/template stand for a repository, as if it had been pushed there."""
    origin = forge / "org" / "template.git"
    run(template, "git", "clone", "--quiet", "--bare", template, origin)
    config = forge / "gitconfig"
    config.write_text(f'[url "{forge.as_uri()}/"]\n  insteadOf = https://github.com/\n')
    run.variables["GIT_CONFIG_GLOBAL"] = str(config)
