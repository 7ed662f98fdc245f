"""What is no Python is right for who reads it: forges, Docker and Kubernetes."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.service import PROGRAMS, run
from tests.template import DEFAULT, ROOT, Bakery

WORKFLOW = ".github/workflows/ci.yml"
SITE = ".github/workflows/site.yml"
DEPENDABOT = ".github/dependabot.yml"
# By the name that check-jsonschema has for each: it brings them along.
SCHEMAS = {
    WORKFLOW: ["vendor.github-workflows"],
    DEPENDABOT: ["vendor.dependabot"],
    ".gitlab-ci.yml": ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
    "compose.yaml": ["vendor.compose-spec"],
}


@pytest.fixture
def project(bake: Bakery) -> Path:
    """A rendering; these files are the same in all, as tests/test_seams.py knows."""
    return bake(**DEFAULT, example=True)


@pytest.fixture(params=["project", "template"])
def folder(request: pytest.FixtureRequest, project: Path) -> Path:
    """The rendering, or the template's own repository."""
    return project if request.param == "project" else ROOT


def check(folder: Path, program: str, *arguments: str) -> None:
    """Run a program that ends with an error if it finds something."""
    found = shutil.which(program, path=PROGRAMS)
    assert found, f"{program} is missing: pip install --group dev"
    run(folder, found, *arguments)


def data_of(path: Path) -> Any:
    """Return what a YAML file says."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def manifests_of(project: Path) -> str:
    """Return what the page on deploying has for Kubernetes."""
    page = (project / "docs" / "deploying.md").read_text(encoding="utf-8")
    (manifests,) = re.findall(r"^```yaml\n(.+?)^```$", page, re.M | re.S)
    return str(manifests)


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_file_fits_its_schema(name: str, project: Path) -> None:
    check(project, "check-jsonschema", "--builtin-schema", *SCHEMAS[name], name)


@pytest.mark.parametrize("name", [WORKFLOW, SITE, DEPENDABOT])
def test_the_templates_own_files_fit_their_schemas(name: str) -> None:
    schema = SCHEMAS[DEPENDABOT if name == DEPENDABOT else WORKFLOW]
    check(ROOT, "check-jsonschema", "--builtin-schema", *schema, name)


@pytest.mark.parametrize("name", [WORKFLOW, DEPENDABOT])
def test_workflows_may_do_no_more_than_they_need(folder: Path, name: str) -> None:
    check(folder, "zizmor", "--offline", "--quiet", name)


def test_the_workflow_holds_together(folder: Path) -> None:
    # No package brings it along: the template's CI installs it, with the network.
    if not shutil.which("actionlint", path=PROGRAMS):
        pytest.skip("there is no actionlint here")
    check(folder, "actionlint", WORKFLOW)


def test_the_manifests_are_kubernetes(project: Path, tmp_path: Path) -> None:
    (tmp_path / "manifests.yaml").write_text(manifests_of(project), encoding="utf-8")
    check(tmp_path, "kubernetes-validate", "--strict", "manifests.yaml")


def test_the_sites_workflow_may_do_no_more_than_it_needs() -> None:
    check(ROOT, "zizmor", "--offline", "--quiet", SITE)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no hadolint for Windows")
def test_the_dockerfile_is_well_made(project: Path) -> None:
    check(project, "hadolint", "Dockerfile")


def test_what_the_image_copies_is_there_and_is_not_ignored(project: Path) -> None:
    text = (project / "Dockerfile").read_text(encoding="utf-8")
    copied = {
        name.rstrip("*")
        for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.M)
        for name in line.split()
    }
    ignored = (project / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    # The last is made by `uv sync`.
    assert [name for name in copied if not (project / name).exists()] == ["uv.lock"]


def test_both_forges_run_the_same_on_the_same_pythons(project: Path) -> None:
    github = data_of(project / WORKFLOW)["jobs"]["test"]
    gitlab = data_of(project / ".gitlab-ci.yml")["test"]
    steps = [step["run"] for step in github["steps"] if "run" in step]
    assert steps == [*gitlab["before_script"][1:], *gitlab["script"]]
    pythons = github["strategy"]["matrix"]["python"]
    assert gitlab["parallel"]["matrix"] == [{"PYTHON": pythons}]


def test_the_platform_waits_until_the_service_has_stopped(project: Path) -> None:
    dockerfile = (project / "Dockerfile").read_text(encoding="utf-8")
    main = (project / "app" / "main.py").read_text(encoding="utf-8")
    (graceful,) = re.findall(r'"--timeout-graceful-shutdown", "(\d+)"', dockerfile)
    (drain,) = re.findall(r"^DRAIN_SECONDS = (\d+)$", main, re.M)
    least = int(graceful) + int(drain)

    service = data_of(project / "compose.yaml")["services"]["service"]
    assert int(service["stop_grace_period"].removesuffix("s")) > least

    _, deployment = yaml.safe_load_all(manifests_of(project))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > int(pause) + least
