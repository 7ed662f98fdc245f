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

from docs.site import code
from docs.site.merging import by_content, conditions, merge
from docs.site.renderings import ROOT, SWITCHES
from docs.site.timeline import CASES, figure, timeline

FLOWCHART = re.compile(r"^```mermaid\n(.+?)^```$", re.M | re.S)
HEADING = re.compile(r"^## `(\w+)`, `(\w+)`$", re.M)
# Languages whose blocks are not searched: what they are about is said beside them.
CODE = {"python", "diff", "sh", "toml", "yaml", "json", "jsonc", "http"}
# What the parts of a block begin with.
PARTS = {
    "table_open": "tr_open",
    "bullet_list_open": "list_item_open",
    "ordered_list_open": "list_item_open",
}
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
        shown = dict(answers)
        for commit, pattern in HEADING.findall(text[: match.start()])[-1:]:
            shown |= {"commit": commit, "pattern": pattern}
        variant = " ".join(shown[each] for each in ("io", "commit", "pattern"))
        return f"```timeline {variant} commit\n{match[1]}```"

    return FLOWCHART.sub(drawing, text)


def _link(_: RendererHTML, tokens: Sequence[Token], index: int, *rest: Any) -> str:
    """Return a link to where its target is in the site."""
    resolve = rest[-1]["resolve"]
    return f'<a href="{escape(resolve(str(tokens[index].attrs["href"])))}">'


def _fence(_: RendererHTML, tokens: Sequence[Token], index: int, *__: Any) -> str:
    """Return highlighted code, or a drawing."""
    token = tokens[index]
    language, _space, marks = token.info.partition(" ")
    if language == "timeline":
        return _drawing(marks, token.content)
    before, after = _around_code(token.info)
    return f"{before}{''.join(_lines_of(token))}{after}"


def _html(_: RendererHTML, tokens: Sequence[Token], index: int, *__: Any) -> str:
    """Leave out comments: they are for tests."""
    content = tokens[index].content
    return "" if content.startswith("<!--") else content


def _drawing(marks: str, flowchart: str) -> str:
    io, commit, pattern, case = marks.split()
    answers = {"io": io, "commit": commit, "pattern": pattern}
    drawn = figure(timeline(answers, case))
    details = (
        "<details><summary>Every kind of session, as Mermaid source</summary>"
        f'<div class="code"><pre tabindex="0"><code>{escape(flowchart)}</code></pre>'
        "</div></details>\n"
    )
    shown = details if flowchart else ""
    return f'<p class="case">{CASES[case]}</p>{drawn}{shown}'


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    for name, rule in {
        "link_open": _link,
        "fence": _fence,
        "code_block": _fence,
        "html_block": _html,
        # A table scrolls by itself.
        "table_open": lambda *_: (
            '<div class="table" tabindex="0" role="region" aria-label="Table"><table>'
        ),
        "table_close": lambda *_: "</table></div>\n",
    }.items():
        markdown.add_render_rule(name, rule)
    return markdown


def _lines_of(fence: Token) -> tuple[str, ...]:
    language = fence.info.partition(" ")[0]
    return tuple(f"{line}\n" for line in code.html(fence.content, language))


def _around_code(info: str) -> tuple[str, str]:
    """Return what is before and after code that scrolls by itself."""
    language, _, marks = info.partition(" ")
    title = dict(re.findall(r'(\w+)="([^"]*)"', marks)).get("title", "")
    caption = f'<p class="file">{escape(title)}</p>' if title else ""
    label = escape(title or language or "text")
    before = (
        f'<div class="code">{caption}<pre tabindex="0" role="region"'
        f' aria-label="{label}"><code>'
    )
    return before, "</code></pre></div>\n"


MARKDOWN = _markdown()


@dataclass(frozen=True)
class Block:
    """A block of a page as HTML, or a heading, which has a level."""

    html: str
    parts: tuple[str, ...] = ()
    """The lines of code, the rows of a table, the items of a list: after `html`."""
    after: str = ""
    level: int = 0
    heading: str = ""
    is_searched: bool = True


def _blocks(text: str, resolve: Resolve) -> Iterator[Block]:
    env: dict[str, Any] = {"resolve": resolve}
    tokens = MARKDOWN.parse(text, env)

    def html_of(tokens: list[Token]) -> str:
        return str(MARKDOWN.renderer.render(tokens, MARKDOWN.options, env))

    start = depth = 0
    for number, token in enumerate(tokens):
        depth += token.nesting
        if depth:
            continue
        block, start = tokens[start : number + 1], number + 1
        kind = block[0].type
        if kind == "heading_open":
            inline = block[1].children or []
            plain = "".join(
                each.content for each in inline if each.type in {"text", "code_inline"}
            )
            yield Block(html_of(inline), level=int(block[0].tag[1]), heading=plain)
        elif kind == "fence" and not block[0].info.startswith("timeline"):
            before, after = _around_code(block[0].info)
            is_searched = block[0].info.partition(" ")[0] not in CODE
            lines = _lines_of(block[0])
            yield Block(before, lines, after, is_searched=is_searched)
        elif kind in PARTS:
            first, last, *around = _parts_of(block, PARTS[kind])
            parts = tuple(map(html_of, around))
            yield Block(html_of(first), parts, html_of(last))
        elif html := html_of(block):
            yield Block(html)


def _parts_of(block: list[Token], opening: str) -> list[list[Token]]:
    """Return what comes before the parts of a block, what after, and each part."""
    after_head = 1
    if opening == "tr_open":
        types = [token.type for token in block]
        if "tbody_open" not in types:
            return [block, []]
        after_head = types.index("tbody_open") + 1
    level = block[after_head].level
    starts = [
        number
        for number, token in enumerate(block)
        if number >= after_head and token.type == opening and token.level == level
    ]
    end = len(block) - (2 if opening == "tr_open" else 1)
    bounds = itertools.pairwise([*starts, end])
    return [block[:after_head], block[end:], *(block[a:b] for a, b in bounds)]


def build(page: Page, texts: Texts, resolve: Resolve) -> None:
    """Fill a page from its text for each set of answers; None has no such page."""
    distinct = by_content(texts)
    within = sum(distinct.values())
    sequences = {tuple(_blocks(text, resolve)): mask for text, mask in distinct.items()}
    parts: list[str] = []
    opened: tuple[str, ...] = ()
    page.sections = [Section("", "")]
    for mask, block in _with_parts_merged(merge(sequences)):
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


def _with_parts_merged(
    blocks: list[tuple[int, Block]],
) -> Iterator[tuple[int, Block]]:
    """Make one block of neighbours that differ in some of their parts."""

    def kind(item: tuple[int, Block]) -> tuple[str, str]:
        return (item[1].html, item[1].after) if item[1].parts else ("", "")

    for (before, after), group in itertools.groupby(blocks, kind):
        items = [*group]
        while after and items:
            # Two that some variant has both of are two blocks.
            whole, sequences = 0, dict[tuple[str, ...], int]()
            while items and not whole & items[0][0]:
                mask, block = items.pop(0)
                whole |= mask
                sequences[block.parts] = sequences.get(block.parts, 0) | mask
            html = "".join(_conditional(merge(sequences), whole))
            yield whole, Block(f"{before}{html}{after}", is_searched=block.is_searched)
        yield from items


def _conditional(parts: list[tuple[int, str]], within: int) -> Iterator[str]:
    for mask, group in itertools.groupby(parts, lambda item: item[0]):
        texts = [text for _, text in group]
        for answers in conditions(mask, within):
            mark = f'data-variants="{escape(" ".join(answers))}"'
            if not answers:
                yield from texts
            elif texts[0].startswith(("<tr>", "<li>")):
                yield from (f"{text[:3]} {mark}{text[3:]}" for text in texts)
            else:
                yield f"<span {mark}>{''.join(texts)}</span>"


def _html_of(block: Block, page: Page, answers: str) -> str:
    if not block.is_searched:
        return block.html
    if not block.level:
        known = page.sections[-1].words
        words = unescape(re.sub(r"<[^>]+>", " ", block.html)).split()
        # Of what is for some answers only, what is new will do.
        known += [word for word in words if not answers or word not in known]
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
    return f'<h{block.level} id="{anchor}">{block.html}</h{block.level}>\n'


# Where the template's files are that are no pages.
REPOSITORY = "https://github.com/org/template/blob/main"


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
            beside = self._candidates(page.source, path)[0]
            if (ROOT / beside).exists():
                return f"{REPOSITORY}/{beside}"
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
