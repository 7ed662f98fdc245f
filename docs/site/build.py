"""Assembles the site in a folder: pages, explorer, search, and what they look like."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from docs.site import explorer
from docs.site.pages import Links, Page, with_timelines
from docs.site.pages import build as build_page
from docs.site.renderings import (
    ANSWERS,
    DERIVED,
    PLACEHOLDERS,
    PROMPTS,
    ROOT,
    SWITCHES,
    contexts,
    environment,
    render_all,
)

HERE = Path(__file__).resolve().parent
# Pages that are templates themselves, and where in the site they are.
TEMPLATES = {"docs/pages": "", "docs/recipes": "recipes/"}
PROJECT = "project"


@dataclass(frozen=True)
class Group:
    """A section of the navigation."""

    title: str
    pages: list[Page]


def build(folder: Path, address: str = "") -> int:
    """Write the site into a folder, and return its size in bytes."""
    projects = render_all()
    pages, groups = _pages(projects)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "static", folder / "assets")
    shutil.copytree(ROOT / "docs" / "costs", folder / "costs")  # what a page shows
    (folder / ".nojekyll").touch()
    theme = Environment(
        loader=FileSystemLoader(HERE / "theme"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared: dict[str, Any] = {
        "groups": groups,
        "switches": SWITCHES,
        "choices": json.dumps(SWITCHES),  # in their order, which a filter would change
        "prompts": PROMPTS["__prompts__"],
        "default": ANSWERS[0],
        "address": address.rstrip("/"),
    }
    _write_data(folder / "data", projects, pages)
    ordered = [page for group in groups for page in group.pages]
    for number, page in enumerate(ordered):
        around = {
            "before": ordered[number - 1] if number else None,
            "after": ordered[number + 1] if number + 1 < len(ordered) else None,
        }
        up = "../" * page.url.count("/")
        html = theme.get_template("page.html").render(
            shared, page=page, up=up, url=page.url, **around
        )
        path = folder / page.url
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    urls = {page.source: page.url for page in pages.values()}
    for name in ("index.html", "explorer.html"):
        html = theme.get_template(name).render(shared, up="", url=name, urls=urls)
        (folder / name).write_text(html, encoding="utf-8")
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def _write_data(
    folder: Path, projects: list[dict[str, str]], pages: dict[str, Page]
) -> None:
    folder.mkdir()
    files = explorer.merged_files(projects)
    for number, merged in enumerate(files.values()):
        text = explorer.payload(number, merged)
        (folder / f"{number}.js").write_text(text, encoding="utf-8")
    found = [
        [page.url, page.title, each.anchor, each.heading, " ".join(each.words)]
        for page in pages.values()
        for each in page.sections
    ]
    for name, script in {
        "manifest": explorer.script("explorer.start", explorer.manifest(files)),
        "timelines": explorer.script("explorer.draw", explorer.timelines()),
        "search": explorer.script("search.receive", found),
    }.items():
        (folder / f"{name}.js").write_text(script, encoding="utf-8")


def _pages(projects: list[dict[str, str]]) -> tuple[dict[str, Page], list[Group]]:
    """Return all pages by their sources, and the sections that they are in."""
    jinja, answers = environment(), contexts(_defaults())
    texts: dict[str, list[str | None]] = {}
    for folder in TEMPLATES:
        for path in sorted((ROOT / folder).glob("**/*.md")):
            source = path.relative_to(ROOT).as_posix()
            template = jinja.get_template(source.removeprefix("docs/"))
            texts[source] = [template.render(**each) for each in answers]
    for name in sorted({name for project in projects for name in project}):
        if re.fullmatch(r"README\.md|docs/.+\.md", name):
            texts[f"{PROJECT}/{name}"] = [_filled(each.get(name)) for each in projects]
    order = tomllib.loads((HERE / "navigation.toml").read_text(encoding="utf-8"))
    plain = {name for each in order["sections"] for name in each["pages"]}
    for source in sorted(plain - texts.keys()):
        text = (ROOT / source).read_text(encoding="utf-8")
        texts[source] = [text] * len(answers)

    pages = {source: Page(source, _url_of(source)) for source in texts}
    links = Links(pages, {name for project in projects for name in project})
    for source, page in pages.items():
        drawn = [
            text and with_timelines(text, each)
            for text, each in zip(texts[source], ANSWERS, strict=True)
        ]
        build_page(page, drawn, links.resolver(page))
        page.title = order["titles"].get(source, page.title)
    links.check()
    return pages, _groups(pages, order["sections"])


def _groups(pages: dict[str, Page], sections: list[dict[str, Any]]) -> list[Group]:
    named = {name for section in sections for name in section["pages"]}
    folders = {section["folder"] for section in sections}
    found = []
    for section in sections:
        rest = [
            name
            for name in pages.keys() - named
            if _folder_of(name, folders) == section["folder"]
        ]
        names = [*section["pages"], *sorted(rest)]
        if names:
            shown = [pages[name] for name in names]
            found.append(Group(section["title"], shown))
    return found


def _folder_of(source: str, folders: set[str]) -> str:
    """Return the innermost of the folders that a page lies in."""
    inside = [each for each in folders if source.startswith(f"{each}/")]
    return max(inside, key=len, default=".")


def _url_of(source: str) -> str:
    for folder, below in TEMPLATES.items():
        if source.startswith(f"{folder}/"):
            return below + source.removeprefix(f"{folder}/").replace(".md", ".html")
    if source.startswith(f"{PROJECT}/"):
        name = source.removeprefix(f"{PROJECT}/").removeprefix("docs/")
        return f"{PROJECT}/{name.lower().replace('.md', '.html')}"
    return source.removeprefix("docs/").lower().replace(".md", ".html")


def _defaults() -> dict[str, str]:
    """Return what stands in pages where a project has its names."""
    slug = {"project_slug": "my-service"}
    texts = {name: PROMPTS[name] for name in PLACEHOLDERS if name in PROMPTS} | slug
    return {name: texts[DERIVED.get(name, name)] for name in PLACEHOLDERS}


def _filled(text: str | None) -> str | None:
    if text is None:
        return None
    for name, default in _defaults().items():
        text = text.replace(PLACEHOLDERS[name], default)
    return text
