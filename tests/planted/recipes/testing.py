"""What the recipe on testing says of suites: it is a suite itself."""

import os
import subprocess
import sys

SUITE = "tests/test_seasonal.py"


def test_the_suite_passes_in_several_processes() -> None:
    options = ["-p", "no:cacheprovider", "-p", "xdist.plugin", "-n", "2"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, SUITE],
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert " passed" in ended.stdout
