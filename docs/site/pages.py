"""Turns pages into HTML that has each variant's text: what is shared, once.

A page is Markdown that cookiecutter's Jinja renders for each set of answers. Blocks
that differ carry the answers that they are for, and the style sheet hides the rest.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape, unescape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from docs.site import code
from docs.site.merging import by_content, conditions, merge
from docs.site.renderings import SWITCHES
from docs.site.timeline import CASES, figure, timeline

FLOWCHART = re.compile(r"^```mermaid\n(.+?)^```$", re.M | re.S)
HEADING = re.compile(r"^## `(\w+)`, `(\w+)`$", re.M)
# Languages whose blocks are not searched: what they are about is said beside them.
CODE = {"python", "diff", "sh", "toml", "yaml", "json", "jsonc", "http"}
Texts = Sequence[str | None]
Resolve = Callable[[str], str]


class BrokenLinkError(Exception):
    """A page links to what does not exist."""


@dataclass
class Section:
    """What the search finds: the text below a heading."""

    anchor: str
    heading: str
    words: list[str] = field(default_factory=list)


@dataclass
class Page:
    """A page of the site."""

    source: str
    """Its path in the repository; `project/…` is a file of rendered projects."""
    url: str
    title: str = ""
    html: str = ""
    anchors: set[str] = field(default_factory=set)
    headings: list[tuple[int, str, str, str]] = field(default_factory=list)
    """Of each: level, anchor, HTML, and the answers that it is for."""
    switches: list[str] = field(default_factory=list)
    """The questions whose answers change the page."""
    links: list[tuple[str, str]] = field(default_factory=list)
    """The URLs in the site that it links to, with their anchors."""
    sections: list[Section] = field(default_factory=list)


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def with_timelines(text: str, answers: dict[str, str]) -> str:
    """Replace flowcharts, which need a script to be drawn, by our own drawing.

    Below a heading like "`auto`, `unit_of_work`" it is that variant's.
    """

    def drawing(match: re.Match[str]) -> str:
        above = HEADING.findall(text[: match.start()])
        shown = answers | dict(zip(("commit", "pattern"), above[-1] if above else ()))
        variant = " ".join(shown[each] for each in ("io", "commit", "pattern"))
        return f"```timeline {variant} commit\n{match[1]}```"

    return FLOWCHART.sub(drawing, text)


class Renderer(RendererHTML):
    """HTML of single blocks; `env` has the function that resolves links."""

    def fence(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        """Return highlighted code, below the name of its file."""
        token = tokens[idx]
        language, _, marks = token.info.partition(" ")
        if language == "timeline":
            return _drawing(marks, token.content)
        return _code(token.info, _lines_of(token))

    def code_block(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        """Return code that is indented."""
        body = escape(tokens[idx].content, quote=False)
        return f'<div class="code"><pre tabindex="0"><code>{body}</code></pre></div>\n'

    def link_open(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        """Return a link to where its target is in the site."""
        return f'<a href="{escape(env["resolve"](str(tokens[idx].attrs["href"])))}">'

    def table_open(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        """Open a table that scrolls by itself."""
        return '<div class="table" tabindex="0" role="region" aria-label="Table"><table>'

    def table_close(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        """Close it."""
        return "</table></div>\n"

    def html_block(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        """Leave out comments: they are for tests."""
        content = tokens[idx].content
        return "" if content.startswith("<!--") else content


def _drawing(marks: str, flowchart: str) -> str:
    io, commit, pattern, case = marks.split()
    answers = {"io": io, "commit": commit, "pattern": pattern}
    drawn = figure(timeline(answers, case))
    details = (
        "<details><summary>Every kind of session, as Mermaid source</summary>"
        f'<div class="code"><pre tabindex="0"><code>{escape(flowchart)}</code></pre>'
        "</div></details>"
        if flowchart
        else ""
    )
    return f'<p class="case">{CASES[case]}</p>{drawn}{details}'


def _lines_of(fence: Token) -> tuple[str, ...]:
    language = fence.info.partition(" ")[0]
    return tuple(f"{line}\n" for line in code.html(fence.content, language))


def _code(info: str, lines: Sequence[str]) -> str:
    """Return code that scrolls by itself, below the name of its file."""
    language, _, marks = info.partition(" ")
    title = dict(re.findall(r'(\w+)="([^"]*)"', marks)).get("title", "")
    caption = f'<p class="file">{escape(title)}</p>' if title else ""
    label = escape(title or language or "text")
    return (
        f'<div class="code">{caption}<pre tabindex="0" role="region"'
        f' aria-label="{label}"><code>{"".join(lines)}</code></pre></div>\n'
    )


MARKDOWN = MarkdownIt("commonmark", {"html": True}, renderer_cls=Renderer)
MARKDOWN.enable("table")


@dataclass(frozen=True)
class Block:
    """A block of a page as HTML; a heading has its level and plain text too."""

    html: str
    level: int = 0
    heading: str = ""
    info: str = ""
    """Of code: its language and marks."""
    lines: tuple[str, ...] = ()


def _blocks(text: str, resolve: Resolve) -> Iterator[Block]:
    env: dict[str, Any] = {"resolve": resolve}
    tokens = MARKDOWN.parse(text, env)
    start = depth = 0
    for number, token in enumerate(tokens):
        depth += token.nesting
        if depth:
            continue
        block, start = tokens[start : number + 1], number + 1
        if block[0].type == "heading_open":
            inline = block[1].children or []
            plain = "".join(
                each.content for each in inline if each.type in {"text", "code_inline"}
            )
            inner = MARKDOWN.renderer.render(inline, MARKDOWN.options, env)
            yield Block(inner, int(block[0].tag[1]), plain)
        elif block[0].type == "fence" and not block[0].info.startswith("timeline"):
            yield Block("", info=block[0].info or "text", lines=_lines_of(block[0]))
        elif html := MARKDOWN.renderer.render(block, MARKDOWN.options, env):
            yield Block(html)


def build(page: Page, texts: Texts, resolve: Resolve) -> None:
    """Fill a page from its text for each set of answers; None has no such page."""
    distinct = by_content(texts)
    within = sum(distinct.values())
    sequences = {
        tuple(_blocks(text, resolve)): mask for text, mask in distinct.items()
    }
    parts: list[str] = []
    opened: tuple[str, ...] = ()
    page.sections = [Section("", "")]
    for mask, block in _with_code_merged(merge(sequences), within):
        for answers in conditions(mask, within):
            if answers != opened:
                parts.append("</div>\n" if opened else "")
                shown = escape(" ".join(answers))
                parts.append(f'<div data-variants="{shown}">\n' if answers else "")
                opened = answers
            parts.append(_html_of(block, page, " ".join(answers)))
    parts.append("</div>" if opened else "")
    page.html = "".join(parts)
    used = " ".join(re.findall(r'data-variants="(.*?)"', page.html))
    page.switches = [each for each in SWITCHES if f"{each}=" in used]


def _with_code_merged(
    blocks: list[tuple[int, Block]], within: int
) -> Iterator[tuple[int, Block]]:
    """Make one block of neighbours that are code of the same kind, line by line."""

    def kind(item: tuple[int, Block]) -> str:
        return item[1].info

    for info, group in itertools.groupby(blocks, kind):
        items = [*group]
        while info and items:
            # Two that some variant has both of are two blocks.
            whole, lines = items[0][0], {items[0][1].lines: items[0][0]}
            number = 1
            while number < len(items) and not whole & items[number][0]:
                mask, block = items[number]
                whole |= mask
                lines[block.lines] = lines.get(block.lines, 0) | mask
                number += 1
            del items[:number]
            yield whole, Block(_code(info, _conditional(merge(lines), whole)), info=info)
        yield from items


def _conditional(lines: list[tuple[int, str]], within: int) -> Iterator[str]:
    for mask, group in itertools.groupby(lines, lambda item: item[0]):
        text = "".join(line for _, line in group)
        for answers in conditions(mask, within):
            shown = escape(" ".join(answers))
            yield f'<span data-variants="{shown}">{text}</span>' if answers else text


def _html_of(block: Block, page: Page, answers: str) -> str:
    if block.info.partition(" ")[0] in {*CODE}:
        return block.html
    if not block.level:
        words = unescape(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", block.html, flags=re.S))
        page.sections[-1].words += words.split()
        return block.html
    anchor = base = anchor_of(block.heading)
    number = 0
    while anchor in page.anchors:
        number += 1
        anchor = f"{base}-{number}"
    page.anchors.add(anchor)
    if block.level == 1 and not page.title:
        page.title = block.heading
        page.sections[-1].heading = block.heading
        return f'<h1 id="{anchor}">{block.html}</h1>\n'
    page.headings.append((block.level, anchor, block.html, answers))
    page.sections.append(Section(anchor, block.heading))
    return (
        f'<h{block.level} id="{anchor}">{block.html}'
        f'<a class="anchor" href="#{anchor}" aria-hidden="true" tabindex="-1">#</a>'
        f"</h{block.level}>\n"
    )


class Links:
    """Finds where in the site the target of a link is."""

    def __init__(self, pages: dict[str, Page], project_files: set[str]) -> None:
        """Take the pages by their sources, and the files of rendered projects."""
        self._pages = pages
        self._files = project_files
        self.broken: list[str] = []

    def resolver(self, page: Page) -> Resolve:
        """Return what gives a page's links their targets."""
        up = "../" * page.url.count("/")

        def resolve(href: str) -> str:
            if re.match(r"[a-z]+:", href):
                return href
            path, _, anchor = href.partition("#")
            if not path:
                page.links.append((page.url, anchor))
                return href
            if path.partition("?")[0].endswith(".html"):
                page.links.append((path.partition("?")[0], ""))
                return f"{up}{href}"
            for source in self._candidates(page.source, path):
                if found := self._pages.get(source):
                    page.links.append((found.url, anchor))
                    return f"{up}{found.url}" + (f"#{anchor}" if anchor else "")
                name = source.removeprefix("project/")
                if source.startswith("project/") and name in self._files:
                    return f"{up}explorer.html?file={name}"
            self.broken.append(f"{page.source}: {href}")
            return href

        return resolve

    @staticmethod
    def _candidates(source: str, path: str) -> list[str]:
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        return [
            beside,
            f"project/{beside}",
            f"project/docs/{path}",
            f"project/{path}",
            f"docs/{path}",
            f"docs/pages/{path}",
            path,
        ]

    def check(self) -> None:
        """Raise `BrokenLinkError` unless each link leads to a page and its heading."""
        anchors = {page.url: page.anchors for page in self._pages.values()}
        for page in self._pages.values():
            for url, anchor in page.links:
                target = anchors.get(url)
                if target is None and url in {"index.html", "explorer.html"}:
                    continue
                if target is None or (anchor and anchor not in target):
                    self.broken.append(f"{page.source}: {url}#{anchor}")
        if self.broken:
            raise BrokenLinkError("\n".join(sorted({*self.broken})))
