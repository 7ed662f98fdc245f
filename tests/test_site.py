"""The site shows what cookiecutter renders, and works in a browser, without a network.

It is built once, and read from a disk, and from a server below a path.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from playwright.sync_api import Browser, Page, expect
from slugify import slugify

from docs.site.merging import MASKS, conditions
from docs.site.renderings import ANSWERS, EVERYWHERE, SWITCHES, render_all
from docs.site.timeline import CASES, timeline
from tests.browser import Reader, browser, build_once, program, served, shelf_of
from tests.service import run
from tests.template import (
    DEFAULT,
    EXTREMES,
    OPPOSITE,
    PAIRS,
    ROOT,
    SLUG,
    Answers,
    Bakery,
    environment,
    files_in,
    render,
)

in_a_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="no Chromium is installed"),
]
HOOK = runpy.run_path(str(ROOT / "hooks" / "pre_gen_project.py"))
refusal: Callable[[Mapping[str, object]], str | None] = HOOK["refusal"]
# The whole site, and what a first look at a page may load.
LARGEST, LARGEST_VIEW = 3_000_000, 300_000
# Names that have to be escaped, or transliterated, each in its own way.
NAMES = [
    {"project_name": 'Tom\'s "Shop"', "author_name": "O'Brien & Söhne"},
    {
        "project_name": "Café Straße №5",
        "description": "a_b *c* [d](e) `f` <g> #h ~i |j",
    },
    {"project_name": "Магазин", "description": "C:\\new\\table"},
    {"project_name": "Ship 🚢 it", "author_name": "林檎"},
    {"project_name": "x" * 90, "description": ""},
    {"project_name": "1,000 tills", "project_slug": "thousand-tills"},
    {"project_name": "$1 $& $$ ${x}", "description": "\\$& \\1 %s {0} 100 %"},
    {"project_name": "東京", "project_slug": "tokyo"},
]
PUNCTUATION = "'\u2019\u201c\u2013\u2026\u2116\u20ac\xdf\xa0\u013f\N{SHIP}"
SWITCHABLE = ("io", "orm", "commit", "pattern")
# Every file of every variant, as the build knows them.
rendered = cache(render_all)


def query(answers: Answers, **more: str) -> str:
    """Return the address of the explorer for some answers."""
    return f"explorer.html?{urlencode({**answers, **more})}"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    return build_once(shelf_of(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's browser."""
    with browser() as started:
        yield started


@pytest.fixture(scope="session")
def below_a_path(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has the site below a path."""
    root = tmp_path_factory.mktemp("root")
    (root / "some").mkdir()
    (root / "some" / "path").symlink_to(site)
    with served(root) as address:
        yield f"{address}some/path/"


@pytest.fixture
def on_disk(site: Path) -> str:
    """The address of the site for whoever opens it from a disk."""
    return f"{site.as_uri()}/"


@pytest.fixture
def reader(chromium: Browser, on_disk: str) -> Iterator[Reader]:
    """A reader of the site on a disk, to whom nothing goes wrong."""
    yield from reading(chromium, on_disk)


def reading(chromium: Browser, address: str, **options: Any) -> Iterator[Reader]:
    """Give a reader of an address, and see in the end that nothing went wrong."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
    context.set_default_timeout(5_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    reader = Reader(context, address)
    yield reader
    context.close()
    assert reader.faults == []


def state_of(page: Page) -> dict[str, str]:
    """Return the answers that a page shows."""
    found: dict[str, str] = page.evaluate("choice.current()")
    return found


def choose(page: Page, name: str, choice: str) -> None:
    """Press a switch as a mouse does."""
    at = f"[name={name}][value={choice}]"
    page.locator(f":is(.answers, .for) {at}").check(force=True)


# What the build knows.


def test_a_mask_is_the_variants_that_its_conditions_name() -> None:
    for mask in (0x0F0F0F0F, 0x80000001, 0x00000003, 0x7FFFFFFF, EVERYWHERE, 0):
        found = 0
        for alternative in conditions(mask):
            part = EVERYWHERE
            for answer in alternative:
                switch, _, choice = answer.partition("=")
                part &= MASKS[switch, choice]
            assert found & part == 0
            found |= part
        assert found == mask


def test_all_is_rendered_at_once_as_cookiecutter_does(bake: Bakery) -> None:
    for files, answers in zip(rendered(), ANSWERS, strict=True):
        if {name: answers[name] for name in SWITCHABLE} not in EXTREMES:
            continue  # the browser looks at all
        project = files_in(bake(**answers | {"example": answers["example"] == "true"}))
        assert files.keys() == project.keys()
        # Those have the names, which are filled in later.
        named = {"README.md", "pyproject.toml"}
        assert [
            name
            for name in project.keys() - named
            if files[name].encode() != project[name]
        ] == []


def test_a_forgotten_commit_cannot_happen_where_the_request_commits() -> None:
    assert [
        (answers["commit"], answers["pattern"])
        for answers in ANSWERS
        if not timeline(answers, "forgotten").steps
    ] == [("auto", "repository")] * 8


# What services do.


@pytest.mark.slow
@pytest.mark.costly
def test_the_timelines_are_what_services_do(
    variant: Answers, bake: Bakery, tmp_path: Path
) -> None:
    project = shutil.copytree(bake(**variant, example=True), tmp_path / "project")
    planted = project / "tests" / "session" / "test_trace.py"
    shutil.copy(ROOT / "tests" / "planted" / "trace.py", planted)
    traces = tmp_path / "traces"
    traces.mkdir()
    forgotten = "settled" if variant["commit"] == "manual" else "undecided"
    command = (sys.executable, "-m", "pytest", "-q", str(planted))
    run(project, *command, TRACES=traces, FORGOTTEN=forgotten)
    traced = {path.stem: json.loads(path.read_text()) for path in traces.iterdir()}
    # What needs a server that dies is among the attacks.
    assert traced.keys() == CASES.keys() - {"unknown"}
    for case, happened in traced.items():
        steps = timeline(variant, case).steps
        expected = [
            f"response {each.text[:3]}" if each.event == "response" else each.event
            for each in steps
            if each.event not in {"", "committed"}  # a trace sees it sent
        ]
        assert happened == expected or not steps, case


# What readers see.


@pytest.mark.parametrize("io", SWITCHES["io"])
@pytest.mark.parametrize("orm", SWITCHES["orm"])
class TestFiles:
    """Every file of every variant, with names."""

    pytestmark = in_a_browser

    def test_a_file_is_what_cookiecutter_renders(
        self, io: str, orm: str, reader: Reader, tmp_path: Path
    ) -> None:
        page = reader.open("explorer.html")
        page.evaluate(
            """() => Promise.all(explorer.files().map((file) =>
            new Promise((resolve) => explorer.withLines(file, resolve))))"""
        )
        chosen = [each for each in ANSWERS if (each["io"], each["orm"]) == (io, orm)]
        for number, answers in enumerate(chosen):
            texts = NAMES[number]
            folder = tmp_path / str(number)
            folder.mkdir()
            given = answers | {"example": answers["example"] == "true"} | texts
            project = render(given, folder, accept_hooks=False)
            shown = page.evaluate(
                """([answers, texts]) => {
                explorer.state.texts = texts;
                const all = explorer.files().map((file) =>
                    [file.name, explorer.rendered(file, answers)]);
                return all.filter(([, text]) => text !== null);
                }""",
                [answers, texts],
            )
            found = {name: text.encode() for name, text in shown}
            expected = files_in(project)
            # The post-generation hook removes folders only.
            assert found.keys() == expected.keys()
            assert [name for name in found if found[name] != expected[name]] == []


class TestNames:
    """Names on the page are what they are to cookiecutter."""

    pytestmark = in_a_browser

    def test_a_slug_follows_from_a_name_as_in_cookiecutter(
        self, reader: Reader
    ) -> None:
        page = reader.open("explorer.html")

        @settings(phases=[Phase.generate], max_examples=20)
        @given(
            st.lists(
                st.text(
                    st.one_of(
                        st.characters(codec="ascii", exclude_categories=["Cc"]),
                        st.characters(max_codepoint=0x45F, exclude_categories=["Cc"]),
                        st.sampled_from(PUNCTUATION),
                    ),
                    max_size=80,
                ),
                min_size=30,
                max_size=30,
            )
        )
        def check(typed: list[str]) -> None:
            slugs = page.evaluate(
                """(all) => all.map((text) =>
                names.slugOf(text, explorer.manifest().slug))""",
                typed,
            )
            for text, slug in zip(typed, slugs, strict=True):
                # It is asked for where the page cannot know.
                if slug is not None:
                    assert slug == (slugify(text, max_length=64) or SLUG), text
                else:
                    assert re.search(
                        r"&(#\w+|\w+);|[^\x00-\u045f\u2010-\u2044\u20ac]", text
                    ), text

        check()

    def test_what_cannot_work_is_refused_as_by_the_hook(self, reader: Reader) -> None:
        page = reader.open("explorer.html")
        names = ["My Service", "", " ", "a\x07b", "x" * 201, "\u2028", "fine"]
        slugs = [
            "my-service",
            "x",
            "3d",
            "a--b",
            "a-",
            "class",
            "fastapi",
            "con",
            "app",
        ]
        for name in names:
            for slug in slugs:
                texts = {
                    "project_name": name,
                    "project_slug": slug,
                    "description": "",
                    "author_name": "A",
                }
                fault = page.evaluate(
                    "(texts) => names.fault(texts, explorer.manifest())", texts
                )
                assert bool(fault) == bool(refusal(texts)), texts

    def test_typing_a_name_changes_command_slug_and_files(self, reader: Reader) -> None:
        page = reader.open("explorer.html?file=pyproject.toml")
        page.get_by_text("Names", exact=True).click()
        page.get_by_label("project_name").fill("Tom's Shop")
        expect(page.locator("#command")).to_contain_text(
            "'project_name=Tom'\\''s Shop'"
        )
        slug = page.get_by_label("project_slug")
        assert slug.get_attribute("placeholder") == "tom-s-shop"
        expect(page.locator("#lines")).to_contain_text('name = "tom-s-shop"')
        expect(page.locator("#lines")).to_contain_text('title = "Tom\'s Shop"')
        slug.fill("Tom")
        expect(page.locator("#fault")).to_contain_text("lower-case")
        assert slug.get_attribute("aria-invalid") == "true"


@pytest.mark.parametrize("texts", [{}, NAMES[0]], ids=["defaults", "names"])
class TestCommands:
    """The commands do what the page shows."""

    pytestmark = in_a_browser

    @pytest.fixture
    def page(self, texts: dict[str, str], reader: Reader) -> Page:
        """The explorer for a variant with names, on pyproject.toml."""
        asked = {"example": "false", "file": "pyproject.toml"} | texts
        return reader.open(query(OPPOSITE, **asked))

    def test_the_command_renders_what_is_shown(
        self, page: Page, tmp_path: Path
    ) -> None:
        page.get_by_role("radio", name="pip", exact=True).check(force=True)
        command = shlex.split(page.inner_text("#command"))
        assert command[:2] == ["cookiecutter", "gh:org/template"]
        folder = tmp_path / "rendered"
        folder.mkdir()
        subprocess.run(
            [
                *(sys.executable, "-m", "cookiecutter", str(ROOT)),
                *("--output-dir", str(folder)),
                *command[2:],
            ],
            env=environment(tmp_path),
            check=True,
            capture_output=True,
        )
        (project,) = folder.iterdir()
        shown = page.evaluate(
            """() => explorer.rendered(explorer.files().find(
            ({ name }) => name === "pyproject.toml"))"""
        )
        assert (project / "pyproject.toml").read_text(encoding="utf-8") == shown
        assert not (project / "app" / "orders").exists()
        assert (project / "app" / "repositories.py").exists()

    def test_all_tools_are_given_the_same(
        self, page: Page, texts: dict[str, str]
    ) -> None:
        given = {}
        for tool in ("uv", "pipx", "pip", "cruft"):
            page.get_by_role("radio", name=tool, exact=True).check(force=True)
            given[tool] = shlex.split(page.inner_text("#command"))
        answers = dict(OPPOSITE, example="false") | texts
        assert json.loads(given["cruft"][-1]) == answers
        assert given["cruft"][:4] == ["uvx", "cruft", "create", "gh:org/template"]
        for tool, beginning in {"uv": ["uvx"], "pipx": ["pipx", "run"]}.items():
            assert given[tool] == beginning + given["pip"]
        pairs = dict(each.split("=", 1) for each in given["pip"][3:])
        assert pairs == answers


class TestExplorer:
    """Switches, links to a choice, differences, and copying."""

    pytestmark = in_a_browser

    @pytest.mark.parametrize("name", SWITCHES)
    def test_a_switch_shows_what_it_changes(self, name: str, reader: Reader) -> None:
        page = reader.open("explorer.html?file=README.md")
        first, second = SWITCHES[name]
        choose(page, name, second)
        assert state_of(page)[name] == second
        assert f"{name}={second}" in page.url
        expect(page.locator("#command")).to_have_text(
            f"uvx cookiecutter gh:org/template --no-input {name}={second}"
        )
        expect(page.locator("#status")).to_contain_text(f"{name}: {first} → {second}")
        assert json.loads(shlex.split(page.inner_text("#update"))[-1]) == {name: second}
        default = {switch: choices[0] for switch, choices in SWITCHES.items()}
        before, after = self.texts(default), self.texts(default | {name: second})
        page.get_by_label("changed files only").check()
        rows = page.locator("#tree [role=treeitem]:not(.folder)")
        marks = {
            item.get_attribute("data-path"): item.get_attribute("class")
            for item in rows.all()
        }
        expected = {
            path: "added" if path not in before else "removed"
            for path in before.keys() ^ after.keys()
        } | {
            path: "changed"
            for path in before.keys() & after.keys()
            if before[path] != after[path]
        }
        assert marks == expected
        lines = page.locator("#lines")
        assert lines.locator("ins").count() + lines.locator("del").count() > 0

    @staticmethod
    def texts(answers: dict[str, str]) -> dict[str, str]:
        return rendered()[ANSWERS.index(answers)]

    def test_a_difference_is_the_one_file_and_the_other(self, reader: Reader) -> None:
        page = reader.open("explorer.html")
        wrong = page.evaluate(
            """async () => {
            const files = explorer.files();
            await Promise.all(files.map((file) =>
                new Promise((resolve) => explorer.withLines(file, resolve))));
            const bare = (line) => line.replace(/[\\x80-\\x9f]/g, "");
            const wrong = [];
            let changed = 0;
            for (const file of files)
                for (let n = 0; n < 64; n++) {
                    const [from, to] = [(n * 7) % 32, (n * 11 + (n >> 5)) % 32];
                    const rows = diff.rows(file.lines, from, to, bare);
                    const sides = [0, 1].map((side) =>
                        rows.map((row) => row[side]).filter((line) => line !== null));
                    [from, to].forEach((variant, side) => {
                        const lines = file.lines
                            .filter(([mask]) => (mask >>> variant) & 1)
                            .map(([, line]) => bare(line));
                        if (lines.join("\\n") !== sides[side].map(bare).join("\\n"))
                            wrong.push([file.name, from, to]);
                    });
                    changed += rows.filter(([a, b]) => a !== b).length;
                    for (const [a, b] of rows)
                        if (a !== b && a !== null && b !== null && bare(a) === bare(b))
                            wrong.push([file.name, from, to, a]);
                }
            return changed ? wrong : ["nothing has changed"];
            }"""
        )
        assert wrong == []

    def test_two_variants_are_seen_side_by_side(self, reader: Reader) -> None:
        page = reader.open("explorer.html?file=app/orders/service.py")
        page.get_by_role("button", name="Compare with another variant").click()
        page.get_by_label("Variant to compare with").select_option(
            "-".join([*OPPOSITE.values(), "true"])
        )
        shown = [
            # Lines of the other side have an empty one beside them.
            "".join(
                f"{line}"
                for line in page.locator(
                    f"pre.{side} .line:not(.none)"
                ).all_text_contents()
            )
            for side in ("old", "new")
        ]
        expected = [
            self.texts({**answers, "example": "true"})["app/orders/service.py"]
            for answers in (OPPOSITE, DEFAULT)
        ]
        assert shown == expected
        page.get_by_role("radio", name="inline").check(force=True)
        assert page.locator("pre.old").count() == 0
        page.get_by_role("button", name="Clear the marks").click()
        assert page.locator("#lines ins, #lines del").count() == 0

    def test_a_choice_can_be_sent_to_somebody(
        self, reader: Reader, chromium: Browser, on_disk: str
    ) -> None:
        page = reader.open("explorer.html?file=app/orders/service.py")
        for name, choice in OPPOSITE.items():
            choose(page, name, choice)
        page.get_by_text("Names", exact=True).click()
        page.get_by_label("project_name").fill('A & "B" + 100 % #1')
        page.get_by_role("radio", name="side by side").check(force=True)
        page.get_by_role("button", name="Copy link").click()
        link = page.evaluate("navigator.clipboard.readText()")
        for other in reading(chromium, on_disk):
            there = other.open(link.removeprefix(on_disk))
            assert state_of(there) == state_of(page)
            for part in ("#command", "#status", "#update", "#lines", "#tree"):
                assert there.inner_text(part) == page.inner_text(part), part
            assert there.input_value("[name=project_name]") == 'A & "B" + 100 % #1'

    def test_an_address_with_nonsense_shows_the_default(self, reader: Reader) -> None:
        page = reader.open(
            "explorer.html?io=green&file=no/such&from=a-b&case=x&layout=y"
        )
        assert state_of(page)["io"] == "async"
        expect(page.locator("#file-name")).to_have_text("README.md")

    def test_what_is_copied_is_the_file_and_the_command(self, reader: Reader) -> None:
        page = reader.open(query(OPPOSITE, example="true", file="app/transaction.py"))
        page.locator("#copy-file").click()
        expected = self.texts({**OPPOSITE, "example": "true"})["app/transaction.py"]
        assert page.evaluate("navigator.clipboard.readText()") == expected
        page.locator("[data-copies=command]").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.inner_text("#command")

    def test_every_case_has_its_timeline(self, reader: Reader) -> None:
        page = reader.open("explorer.html?view=timeline")
        for case, title in CASES.items():
            page.get_by_role("radio", name=title, exact=True).check(force=True)
            for answers in EXTREMES:
                for name in ("commit", "pattern"):
                    choose(page, name, answers[name])
                found = timeline(answers | {"io": "async"}, case)
                expect(page.locator(".saved")).to_have_text(found.saved)
                items = page.locator(".steps li").all_text_contents()
                assert len(items) == len(found.steps)
                assert page.locator("svg.sequence").count() == bool(found.steps)
            assert f"case={case}" in page.url

    def test_four_questions_end_in_a_setting(self, reader: Reader) -> None:
        page = reader.open("explorer.html")
        page.get_by_role("button", name="Help me choose").click()
        for name, choice in OPPOSITE.items():
            page.locator(f"[name=q-{name}][value={choice}]").check()
        expect(page.locator("#choose-result")).to_have_text(
            " · ".join(OPPOSITE.values())
        )
        page.get_by_role("button", name="Show me this one").click()
        # A dialog tells that it was closed a moment after it is.
        page.wait_for_function("io => choice.current().io === io", arg=OPPOSITE["io"])
        assert state_of(page) == {**OPPOSITE, "example": "true"}
        page.get_by_role("button", name="Help me choose").click()
        page.keyboard.press("Escape")
        assert state_of(page) == {**OPPOSITE, "example": "true"}

    def test_it_can_be_worked_by_the_keyboard_alone(self, reader: Reader) -> None:
        page = reader.open("explorer.html")
        press = page.keyboard.press
        press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        press("Enter")
        press("Tab")
        press("ArrowRight")
        assert state_of(page)["io"] == "sync"
        for _ in range(40):
            press("Tab")
            if page.evaluate("document.activeElement.role") == "treeitem":
                break
        expect(page.locator(":focus")).to_have_attribute(
            "data-path", "app/transaction.py"
        )
        press("Home")
        press("ArrowRight")
        press("ArrowDown")
        expect(page.locator(":focus")).to_have_attribute(
            "data-path", ".github/workflows"
        )
        press("ArrowLeft")
        press("ArrowLeft")
        expect(page.locator(":focus")).to_have_attribute("aria-expanded", "false")
        press("End")
        expect(page.locator(":focus")).to_have_attribute("data-path", "pyproject.toml")
        press("Enter")
        expect(page.locator("#file-name")).to_have_text("pyproject.toml")
        page.locator("#tab-files").focus()
        press("ArrowRight")
        expect(page.locator("#panel-timeline")).to_be_visible()
        expect(page.locator("#tab-timeline")).to_be_focused()


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^":?#]+)["?#]', text):
            assert (path.parent / link).exists(), (path, link)


class TestPages:
    """The documentation, for each variant."""

    pytestmark = in_a_browser

    @pytest.fixture(params=["file", "http"])
    def anywhere(
        self,
        request: pytest.FixtureRequest,
        chromium: Browser,
        on_disk: str,
        below_a_path: str,
    ) -> Iterator[Reader]:
        """A reader of the site from a disk, and from a server."""
        address = on_disk if request.param == "file" else below_a_path
        yield from reading(chromium, address)

    def test_one_gets_from_the_first_page_to_any_other(self, anywhere: Reader) -> None:
        page = anywhere.open("index.html")
        page.get_by_role("link", name=", ".join(OPPOSITE.values()), exact=True).click()
        page.wait_for_selector("#lines ins, #lines .line")
        assert state_of(page) == {**OPPOSITE, "example": "true"}
        choose(page, "io", "async")
        expect(page.locator("#lines")).to_contain_text("async with uow:")
        page.get_by_role("link", name="Documentation").click()
        page.locator(".side").get_by_role("link", name="Writing", exact=True).click()
        assert state_of(page)["pattern"] == "unit_of_work"
        page.get_by_role("link", name="The README").click()
        assert page.url.endswith("project/readme.html#when-does-it-commit")

    def test_the_search_finds_a_section_and_goes_there(self, anywhere: Reader) -> None:
        page = anywhere.open("project/sessions/reading.html")
        page.keyboard.press("/")
        page.keyboard.type("commit xyzzy")
        expect(page.locator(".count")).to_contain_text("Nothing found")
        page.keyboard.press("Control+a")
        page.keyboard.type("target_session_attrs standby")
        results = page.get_by_role("option")
        expect(results.first.locator("mark").first).to_have_text("standby")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        goal = results.first.get_attribute("href")
        assert goal
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(re.escape(goal.replace("../", "")) + "$"))
        expect(page.locator("article")).to_contain_text("target_session_attrs")

    def test_code_is_the_variants_own_and_so_is_what_is_copied(
        self, reader: Reader
    ) -> None:
        fences = {
            (number, name): [
                token.content
                for token in MarkdownIt().parse(text[name])
                if token.type == "fence" and token.info != "mermaid"
            ]
            for number, text in enumerate(rendered())
            for name in ("docs/sessions/serializable.md", "docs/relationships.md")
            if {key: ANSWERS[number][key] for key in SWITCHABLE} in PAIRS
        }
        for (number, name), expected in fences.items():
            path = name.replace("docs/", "project/").replace(".md", ".html")
            answers = ANSWERS[number]
            page = reader.open(query(answers).replace("explorer.html", path))
            shown = page.locator("article pre:visible")
            blocks = shown.evaluate_all("""(all) => all.map((pre) => pre.innerText)""")
            assert [each.rstrip("\n") for each in blocks] == [
                each.rstrip("\n") for each in expected
            ], (answers, name)
        page.locator("article .copy:visible").nth(1).click()
        assert page.evaluate("navigator.clipboard.readText()") == expected[1]

    def test_a_switch_of_a_page_holds_for_the_next(self, reader: Reader) -> None:
        page = reader.open("project/sessions/writing.html")
        code = page.locator("article pre:visible").first
        assert "async def" in code.inner_text()
        choose(page, "io", "sync")
        assert "io=sync" in page.url
        assert "async def" not in code.inner_text()
        page = reader.open("project/sessions/background.html")
        assert state_of(page)["io"] == "sync"

    def test_without_scripts_the_default_is_shown(
        self, chromium: Browser, on_disk: str
    ) -> None:
        for reader in reading(chromium, on_disk, java_script_enabled=False):
            page = reader.open("project/sessions/serializable.html")
            visible = page.locator("article [data-variants]:visible").all()
            shown = [each.get_attribute("data-variants") or "" for each in visible]
            assert shown
            others = {f"{name}={choices[1]}" for name, choices in SWITCHES.items()}
            assert [each for each in shown if {*each.split()} & others] == []

    def test_every_page_fits_a_narrow_screen(self, site: Path, reader: Reader) -> None:
        reader.page.set_viewport_size({"width": 360, "height": 740})
        for path in sorted(site.rglob("*.html")):
            page = reader.open(path.relative_to(site).as_posix())
            assert page.evaluate("document.documentElement.scrollWidth") == 360, path
            assert page.locator("h1").count() == 1, path
        page = reader.open("explorer.html?from=sync-sqlmodel-manual-unit_of_work-true")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page = reader.open("explorer.html?view=timeline")
        expect(page.locator(".steps")).to_be_visible()

    def test_on_paper_there_is_the_text_alone(self, reader: Reader) -> None:
        page = reader.open("project/errors.html")
        page.emulate_media(media="print")
        for part in (".top", ".side", ".around"):
            expect(page.locator(part)).to_be_hidden()
        expect(page.locator("article")).to_be_visible()

    def test_it_is_small(self, site: Path, reader: Reader) -> None:
        sizes = {
            path.as_uri(): path.stat().st_size
            for path in site.rglob("*")
            if path.is_file()
        }
        assert sum(sizes.values()) <= LARGEST
        for path in ("index.html", "explorer.html", "project/errors.html"):
            reader.open(path)
            loaded = {url.partition("?")[0] for url in reader.loaded}
            assert sum(map(sizes.__getitem__, loaded)) <= LARGEST_VIEW, loaded


@pytest.mark.parametrize("scheme", ["light", "dark"])
class TestAccess:
    """Nobody is kept out: what axe-core finds, in both colour schemes."""

    pytestmark = in_a_browser

    @pytest.fixture
    def reader(self, scheme: str, chromium: Browser, on_disk: str) -> Iterator[Reader]:
        """A reader who prefers a colour scheme."""
        yield from reading(chromium, on_disk, color_scheme=scheme)

    def test_axe_finds_nothing_serious(self, reader: Reader) -> None:
        compared = "from=" + "-".join([*OPPOSITE.values(), "false"])
        for path in (
            "index.html",
            "project/readme.html",
            "project/sessions/serializable.html",
            "rules.html",
            f"explorer.html?{compared}",
            f"explorer.html?{compared}&layout=split&file=app/orders/service.py",
            "explorer.html?view=timeline&case=failing",
        ):
            page = reader.open(path)
            assert serious(page) == [], path
        page.get_by_role("button", name="Help me choose").click()
        assert serious(page) == []
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.type("commit")
        expect(page.get_by_role("option").first).to_be_visible()
        assert serious(page) == []

    def test_the_colours_can_be_chosen(self, scheme: str, reader: Reader) -> None:
        page = reader.open("index.html")
        ours = page.evaluate("getComputedStyle(document.body).backgroundColor")
        other = page.locator("button[data-look]")
        other.click()
        if scheme == "light":
            other.click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ours
        page = reader.open("rules.html")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ours


# Whatever is loaded by a script would be refused on a disk, and is not needed.
CHECKS = {"resultTypes": ["violations"], "preload": False}


def serious(page: Page) -> list[str]:
    """Return what axe-core calls serious or critical."""
    found = Axe().run(page, options=CHECKS).response["violations"]
    return [
        f"{each['id']}: {node['html'][:160]}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]
