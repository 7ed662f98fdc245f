"""Names that cannot work are refused; any other text comes through as it is."""

from __future__ import annotations

import ast
import json
import re
import runpy
import string
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType
from typing import Any

import pytest
import yaml
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jinja2 import Environment, Template
from markdown_it import MarkdownIt
from pytest_cookies.plugin import Cookies

from tests import template
from tests.service import run
from tests.template import (
    COMBINATIONS,
    PROMPTS,
    ROOT,
    SWITCHES,
    Answers,
    Bakery,
    environment,
    files_in,
)

PATH_OF_HOOK = ROOT / "hooks" / "pre_gen_project.py"
HOOK = runpy.run_path(str(PATH_OF_HOOK))
refusal: Callable[[Mapping[str, object]], str | None] = HOOK["refusal"]

TEXTS = ("project_name", "description", "author_name")
GOOD = {
    "project_name": "My Service",
    "project_slug": "my-service",
    "description": "A service.",
    "author_name": "The Team",
}

REFUSED = {
    "a capital letter": ("project_slug", "My-service", "lower-case"),
    "an underscore": ("project_slug", "my_service", "lower-case"),
    "a space": ("project_slug", "my service", "lower-case"),
    "a letter beyond ASCII": ("project_slug", "café", "lower-case"),
    "a dot": ("project_slug", "my.service", "lower-case"),
    "a digit in front": ("project_slug", "3d-shop", "begins with a letter"),
    "a hyphen in front": ("project_slug", "-shop", "begins with a letter"),
    "a hyphen at the end": ("project_slug", "shop-", "ends with"),
    "two hyphens": ("project_slug", "my--shop", "single hyphens"),
    "one letter": ("project_slug", "x", "2 to 64"),
    "65 letters": ("project_slug", "x" * 65, "2 to 64"),
    "a keyword": ("project_slug", "class", "keyword"),
    "a dependency": ("project_slug", "fastapi", "dependency"),
    "a dependency of two words": ("project_slug", "pydantic-settings", "dependency"),
    "what a dependency is imported as": ("project_slug", "jwt", "dependency"),
    "the package of the project": ("project_slug", "app", "package"),
    "the tests of the project": ("project_slug", "tests", "package"),
    "a device of Windows": ("project_slug", "con", "Windows"),
    "a numbered device of Windows": ("project_slug", "com1", "Windows"),
    "a step aside": ("project_slug", "../shop", "lower-case"),
    "a blank name": ("project_name", "  ", "blank"),
    "no name": ("project_name", "", "blank"),
    "a blank author": ("author_name", "  ", "blank"),
    "no author": ("author_name", "", "blank"),
    "no text": ("project_name", None, "not text"),
    "a name of 201 characters": ("project_name", "x" * 201, "200 characters"),
    "a line feed": ("description", "two\nlines", "U+000A"),
    "a NUL": ("project_name", "a\0b", "U+0000"),
    "an escape": ("author_name", "\x1b[31mred", "U+001B"),
    "a delete": ("author_name", "a\x7f", "U+007F"),
    "a C1 control": ("author_name", "a\x85b", "U+0085"),
    "a line separator": ("description", "a\u2028b", "U+2028"),
    "a paragraph separator": ("description", "a\u2029b", "U+2029"),
    "half of a surrogate pair": ("description", "a\ud83d", "U+D83D"),
}

HOSTILE = {
    "quotes": """"'`\"\"\" ''' "it's" \\" """ + '"',
    "backslashes": "\\ \\n \\\\ \\u0041 \\",
    "comments": "# --- : > | & * ! %YAML <!-- /* [x](y) **",
    "Jinja": "{{ 7 * 7 }} {% if %} {# no #} }} %} ${{ x }} {cookie}",
    "Python": '"""; raise SystemExit(7); r"""',
    "emoji": "💥 👩\u200d💻 🇪🇺",
    "right to left": "\u202eאבג\u202c مرحبا",
    "Markdown": "<b> &amp; ~~a~~ `b` ![c](d) <!-- ``` [e]: f --- === \\",
    "200 characters": '\\"é💥' * 50,
}

# The others say the same of whole renderings, and are left to the slow tier.
QUICKLY = ("quotes", "Jinja", "Markdown", "200 characters")

# The only files that a text answer reaches.
SHOW_TEXT = ("README.md", "pyproject.toml")

ANY_CHARACTER = st.characters(exclude_categories=())
PIECES = ['"', '"""', "'", "\\", "{{", "}}", "{%", "%}", "{#", "#", "<", "&", "\n", "x"]
ANY_TEXT = st.one_of(
    st.text(ANY_CHARACTER, max_size=220),
    st.lists(st.sampled_from(PIECES) | ANY_CHARACTER, max_size=40).map("".join),
)
ALLOWED_CHARACTER = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))
ALLOWED_TEXT = st.one_of(
    st.text(ALLOWED_CHARACTER, min_size=1, max_size=200),
    st.text(string.punctuation + "a1 ", min_size=1, max_size=40),
).filter(str.strip)
# What means something in one of the formats, and what is hard to show, more often.
SHOWN_TEXT = st.one_of(
    ALLOWED_TEXT,
    st.sampled_from([*HOSTILE.values()]),
    st.text(ALLOWED_CHARACTER, min_size=200, max_size=200).filter(str.strip),
    st.lists(st.sampled_from(" ".join(HOSTILE.values()).split(" ")), min_size=1)
    .map(" ".join)
    .filter(lambda text: text.strip() and len(text) <= 200),
)
SHOWN_ANSWERS = st.fixed_dictionaries(
    {
        "project_name": SHOWN_TEXT,
        "project_slug": st.from_regex(HOOK["SLUG"], fullmatch=True).filter(
            lambda slug: HOOK["fault_in_slug"](slug) is None
        ),
        "description": SHOWN_TEXT | st.sampled_from(["", " "]),
        "author_name": SHOWN_TEXT,
    }
)
# Of letters that spell no name which is taken.
NEARLY_SLUGS = st.one_of(
    st.text("xz09-", max_size=68), st.text("xz09-A_.é \n", max_size=6)
)
# As GitHub reads it.
MARKDOWN = MarkdownIt("commonmark").enable(["strikethrough", "table"])
JINJA = create_env_with_context({"cookiecutter": PROMPTS})

# The validator takes a fraction of a millisecond; the rest takes longer.
by_thousands = pytest.mark.parametrize(
    "examples", [200, pytest.param(10_000, marks=pytest.mark.slow)]
)
at_length = pytest.mark.parametrize(
    "examples", [100, pytest.param(2_500, marks=pytest.mark.slow)]
)


def is_clear(line: str, prompt: str, answer: object) -> bool:
    """Say whether a refusal is one line, with a proposal that is not refused itself."""
    if prompt == "project_slug":
        proposal = HOOK["similar_slug"](answer)
    else:
        proposal = HOOK["similar_text"](prompt, answer)
    return (
        line.startswith(f"{prompt} cannot be ")
        and line.endswith(f". {proposal!r} would do.")
        and line.isprintable()
        and refusal(GOOD | {prompt: proposal}) is None
    )


@cache
def template_of(variable: str) -> Template:
    """Return how a variable of cookiecutter.json is made."""
    template: Template = JINJA.from_string(PROMPTS[variable])
    return template


def escaped(variable: str, text: str) -> str:
    """Return a text as a variable of cookiecutter.json prepares it for its format."""
    return template_of(variable).render(cookiecutter=dict.fromkeys(TEXTS, text))


@cache  # To read the same README again takes its time.
def shown_by_markdown(source: str) -> list[str]:
    """Return the text of each block as a reader sees it: no tags, but all code."""
    return [
        "".join(
            each.content
            for each in block.children or [block]
            if each.type not in ("html_inline", "html_block")
        )
        for block in MARKDOWN.parse(source)
        if block.content
    ]


def as_typed(text: str) -> str:
    """Return what stands for a text where cookiecutter takes it for Jinja.

    It does so with --no-input and in a configuration file, but not with what is typed.
    """
    literal = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'{{{{ "{literal}" }}}}'


def render(folder: Path, texts: Mapping[str, str], **answers: Any) -> Path:
    """Return the project that cookiecutter itself renders into a folder."""
    typed = {prompt: as_typed(text) for prompt, text in texts.items()}
    return template.render(typed | answers, folder)


@pytest.mark.parametrize(
    ("prompt", "answer", "reason"), REFUSED.values(), ids=REFUSED.keys()
)
def test_what_cannot_work_is_refused_with_one_clear_line_and_nothing_is_written(
    prompt: str,
    answer: str | None,
    reason: str,
    cookies: Cookies,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = cookies.bake(GOOD | {prompt: answer}, template=str(ROOT))

    assert result.exit_code != 0
    assert {path.name for path in tmp_path.rglob("*")} == {"cookies", "bake00"}
    (line,) = capfd.readouterr().err.splitlines()
    assert reason in line
    assert is_clear(line, prompt, answer)


def test_a_refusal_is_all_that_the_command_says_on_stderr(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cookiecutter", "--no-input", ROOT, "project_slug=app"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        encoding="utf-8",
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "project_slug cannot be 'app': the project has a package of that name."
        " 'app-service' would do.\n"
    )
    assert not [*tmp_path.glob("app*")]


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Service", "my-service"),
        ("Caffè & Brötchen", "caffe-brotchen"),
        ("💥", "my-service"),
        ("x" * 200, "x" * 64),
    ],
)
def test_the_slug_follows_the_name(name: str, slug: str) -> None:
    context = generate_context(
        str(ROOT / "cookiecutter.json"), extra_context={"project_name": name}
    )
    answers = prompt_for_config(context, no_input=True)
    assert answers["project_slug"] == slug
    assert refusal({prompt: answers[prompt] for prompt in GOOD}) is None


def test_what_a_project_depends_on_is_refused_as_its_name(bake: Bakery) -> None:
    names = set()
    for answers in COMBINATIONS:
        pyproject = bake(**answers, example=True) / "pyproject.toml"
        tables = tomllib.loads(pyproject.read_text(encoding="utf-8"))
        needed = tables["project"]["dependencies"] + tables["dependency-groups"]["dev"]
        names |= {re.split(r"[^\w.-]", each)[0].lower() for each in needed}
    assert "fastapi" in names
    assert [name for name in names if not refusal(GOOD | {"project_slug": name})] == []


@by_thousands
def test_a_slug_is_refused_exactly_when_the_rule_says_so(examples: int) -> None:
    @settings(max_examples=examples)
    @given(NEARLY_SLUGS)
    def check(slug: str) -> None:
        follows_the_rule = (
            2 <= len(slug) <= 64
            and set(slug) <= {*string.ascii_lowercase, *string.digits, "-"}
            and slug[0] in string.ascii_lowercase
            and not slug.endswith("-")
            and "--" not in slug
        )
        line = refusal(GOOD | {"project_slug": slug})
        assert (line is None) == follows_the_rule
        assert line is None or is_clear(line, "project_slug", slug)

    check()


@by_thousands
def test_any_text_is_refused_clearly_or_comes_through(examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.sampled_from(TEXTS), ANY_TEXT)
    def check(prompt: str, text: str) -> None:
        if line := refusal(GOOD | {prompt: text}):
            assert is_clear(line, prompt, text)
            return
        inside = escaped(f"__{prompt}", text)
        assert tomllib.loads(f'text = "{inside}"') == {"text": text}
        assert ast.literal_eval(f'"{inside}"') == text

    check()


@at_length
def test_any_allowed_text_can_be_read_in_markdown(examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.sampled_from(["project_name", "description"]), SHOWN_TEXT)
    def check(prompt: str, text: str) -> None:
        inside = escaped(f"__{prompt}_markdown", text)
        heading, paragraph = shown_by_markdown(f"# {inside}\n\nAbout: {inside}\n")
        assert heading.strip() == text.strip()
        assert paragraph.removeprefix("About:").strip() == text.strip()

    check()


@by_thousands
def test_no_text_of_printed_characters_is_refused(examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.sampled_from(TEXTS), SHOWN_TEXT)
    def check(prompt: str, text: str) -> None:
        assert refusal(GOOD | {prompt: text}) is None

    check()


@at_length
def test_no_answer_becomes_a_part_of_the_hook(examples: int) -> None:
    source = PATH_OF_HOOK.read_text(encoding="utf-8")
    before, answers, after = re.split(r'(r"""\{.*?\}""")', source, flags=re.DOTALL)
    assert "cookiecutter." in answers
    hook = JINJA.from_string(source)

    @settings(max_examples=examples)
    @given(st.fixed_dictionaries(dict.fromkeys(GOOD, ANY_TEXT)))
    def check(given_answers: dict[str, str]) -> None:
        rendered = hook.render(cookiecutter=given_answers)
        literal = rendered.removeprefix(before).removesuffix(after)
        assert rendered == before + literal + after
        assert json.loads(ast.literal_eval(literal)) == given_answers

    check()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=name, marks=[] if name in QUICKLY else pytest.mark.slow)
        for name, text in HOSTILE.items()
    ],
)
def test_hostile_text_renders_into_valid_files(
    text: str, bake: Bakery, tmp_path: Path
) -> None:
    texts = GOOD | dict.fromkeys(TEXTS, text)
    assert_valid(render(tmp_path, texts), texts, plain=bake())


@pytest.fixture
def compiling_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Jinja compile a source once for many renderings; it takes half their time.

    The answers are values of variables, and no part of what is compiled.
    """
    compiled: dict[tuple[str | None, ...], CodeType] = {}
    compile_source = Environment.compile

    def compile_once(
        self: Environment, source: str, name: str | None = None, file: str | None = None
    ) -> CodeType:
        key = (source, name, file)
        if key not in compiled:
            compiled[key] = compile_source(self, source, name, file)
        return compiled[key]

    monkeypatch.setattr(Environment, "compile", compile_once)


@pytest.mark.slow
@pytest.mark.usefixtures("compiling_once")
def test_any_allowed_answers_render_into_valid_files(
    bake: Bakery, tmp_path: Path
) -> None:
    # To explain a failure takes minutes more, in renderings.
    @settings(max_examples=300, phases={*Phase} - {Phase.explain})
    @given(SHOWN_ANSWERS, st.sampled_from(COMBINATIONS))
    def check(texts: dict[str, str], variant: Answers) -> None:
        # The example shows none of the texts, and would take most of the time.
        answers = {**variant, "example": False}
        with TemporaryDirectory(dir=tmp_path) as folder:
            project = render(Path(folder), texts, **answers)
            assert_valid(project, texts, plain=bake(**answers))

    check()


@pytest.mark.slow
def test_hostile_text_shows_in_the_interface(tmp_path: Path) -> None:
    texts = GOOD | {
        "project_name": HOSTILE["Python"],
        "description": HOSTILE["200 characters"],
    }
    document = "from app.main import app; import json; print(json.dumps(app.openapi()))"
    said = run(render(tmp_path, texts), sys.executable, "-c", document)
    about = json.loads(said.splitlines()[-1])["info"]
    assert about["title"] == texts["project_name"]
    assert about["description"] == texts["description"]


def test_hostile_text_can_be_typed(bake: Bakery, tmp_path: Path) -> None:
    text = HOSTILE["Jinja"]
    typed = [text, "shop", text, text, *("1" for _ in SWITCHES), "y"]
    subprocess.run(
        [sys.executable, "-m", "cookiecutter", ROOT],
        cwd=tmp_path,
        env=environment(tmp_path),
        input="\n".join(typed) + "\n",
        stdout=subprocess.DEVNULL,
        encoding="utf-8",
        check=True,
    )
    texts = {"project_slug": "shop"} | dict.fromkeys(TEXTS, text)
    assert_valid(tmp_path / "shop", texts, plain=bake())


def assert_valid(project: Path, texts: Mapping[str, str], plain: Path) -> None:
    """Check that a rendering parses, shows its texts, and is else like a plain one.

    The plain one is the same variant, with the default texts.
    """
    files, plain_files = files_in(project), files_of_baked(plain)
    assert files.keys() == plain_files.keys()
    for name, content in files.items():
        assert_parses(name, content)
        assert name in SHOW_TEXT or content == plain_files[name], name

    assert project.name == texts["project_slug"]
    about = tomllib.loads(plain_files["pyproject.toml"].decode())
    about["project"] |= {
        "name": texts["project_slug"],
        "description": texts["description"],
        "authors": [{"name": texts["author_name"]}],
    }
    about["tool"]["app"] = {"title": texts["project_name"]}
    assert tomllib.loads(files["pyproject.toml"].decode()) == about

    title, description, *rest = shown_by_markdown(files["README.md"].decode())
    assert title == texts["project_name"].strip()
    assert description == f"In one sentence: {texts['description']}".strip()
    assert rest == shown_by_markdown(plain_files["README.md"].decode())[2:]


@cache  # Nobody changes what is baked.
def files_of_baked(plain: Path) -> dict[str, bytes]:
    """Return the files of a project from the bakery."""
    return files_in(plain)


@cache  # Most files are the same from one text to the next.
def assert_parses(name: str, content: bytes) -> None:
    """Check that a file is valid, if it is of a kind that can be parsed."""
    if name.endswith(".toml"):
        tomllib.loads(content.decode())
    elif name.endswith((".yaml", ".yml")):
        yaml.safe_load(content)
    elif name.endswith(".py"):
        ast.parse(content)


def test_every_prompt_and_every_choice_has_a_sentence() -> None:
    sentences: dict[str, Any] = PROMPTS["__prompts__"]
    assert [*sentences] == [prompt for prompt in PROMPTS if not prompt.startswith("_")]
    for prompt, sentence in sentences.items():
        if prompt not in SWITCHES:
            assert sentence.strip()
            continue
        assert sentence["__prompt__"].strip()
        assert [*sentence] == ["__prompt__", *SWITCHES[prompt]]
        for choice in SWITCHES[prompt]:
            assert re.fullmatch(rf"{choice}: \w.+", sentence[choice])


def test_the_prompts_keep_their_names_and_their_order() -> None:
    assert [prompt for prompt in PROMPTS if not prompt.startswith("_")] == [
        "project_name",
        "project_slug",
        "description",
        "author_name",
        "io",
        "orm",
        "commit",
        "pattern",
        "example",
    ]
    assert SWITCHES == {
        "io": ["async", "sync"],
        "orm": ["sqlalchemy", "sqlmodel"],
        "commit": ["auto", "manual"],
        "pattern": ["repository", "unit_of_work"],
    }
    assert PROMPTS["example"] is True
