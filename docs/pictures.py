"""Makes the README's pictures: the prompts as they are asked, and what `/docs` shows.

Both are of a real run. `/docs` loads swagger-ui from a CDN; here that is a folder which
npm has unpacked, as the picture is of the service alone (and needs `chromium`):

    npm pack swagger-ui-dist@5 && tar -xf swagger-ui-dist-5.*.tgz
    .venv/bin/python docs/pictures.py --swagger package --home /home/ada

The home is where the project is rendered, as the terminal shows; it is left empty.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

# A script finds only what lies beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.owner import Run, commit, copy_template, publish
from tests.service import Service
from tests.template import PROMPTS, ROOT, SLUG

IMAGES = ROOT / "docs" / "images"
COMMAND = ("uvx", "cookiecutter", "gh:org/template")
ASKED = [prompt for prompt in PROMPTS if not prompt.startswith("_")]
COLUMNS = 101  # No line is broken.
CDN = re.compile(r"https://[^\"']+/swagger-ui-dist@5/")
LIGHT = TerminalTheme(
    (246, 248, 250),
    (31, 35, 40),
    [
        *((31, 35, 40), (207, 34, 46), (17, 99, 41), (154, 103, 0)),
        *((9, 105, 218), (130, 80, 223), (27, 124, 131), (110, 119, 129)),
    ],
)
# rich's own, without the font that it loads from elsewhere, and without a window.
SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" \
xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font: {char_height}px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
    line-height: {line_height}px;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
<rect fill="#f6f8fa" width="100%" height="100%" rx="12"/>
<g transform="translate({terminal_x}, {terminal_y})" \
clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def answered(home: Path, run: Run) -> str:
    """Return what a terminal shows of the command, with each default accepted."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(home)
        os.execvpe(COMMAND[0], COMMAND, run.variables | {"COLUMNS": str(COLUMNS)})
    shown = ""
    for number in range(1, len(ASKED) + 1):
        question = re.compile(rf"\[{number}/{len(ASKED)}\].*\):\s*$", re.DOTALL)
        while not question.search(re.sub(r"\x1b\[[\d;]*m", "", shown)):
            shown += os.read(terminal, 1024).decode()
        os.write(terminal, b"\n")
    while True:
        try:
            shown += os.read(terminal, 1024).decode()
        except OSError:  # It has ended.
            break
    _, status = os.waitpid(process, 0)
    assert status == 0, shown
    return shown.replace("\r", "")


def draw_prompts(home: Path) -> None:
    """Run the README's command on a terminal, and draw what that shows."""
    with TemporaryDirectory() as folder:
        run = Run(Path(folder))
        template = Path(folder, "template.git")
        copy_template(run, template)
        commit(run, template)
        publish(run, template, Path(folder, "forge"))
        # The last words are for who renders elsewhere than in the temporary folder.
        run.variables["TMPDIR"] = folder
        run.variables |= {"TERM": "xterm-256color", "UV_NO_PROGRESS": "1"}
        run(home, *COMMAND[:2], "--version")  # uvx installs it now, rather than below.
        shown = answered(home, run)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.assemble(("$ ", "dim"), (" ".join(COMMAND), "bold")))
    console.print(Text.from_ansi(shown.strip("\n")))
    console.print()
    svg = console.export_svg(theme=LIGHT, code_format=SVG, unique_id="prompts")
    lines = [line.rstrip() for line in svg.splitlines() if line.strip()]
    (IMAGES / "prompts.svg").write_text("\n".join([*lines, ""]), encoding="utf-8")


def draw_docs(project: Path, swagger: Path) -> None:
    """Serve the project, and take a picture of its documentation."""
    with TemporaryDirectory() as folder:
        pages = Path(folder)
        for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
            shutil.copy(swagger / name, pages)
        with Service(project) as service:
            client = service.client()
            # Its response says so in a header.
            page = '<meta charset="utf-8">' + CDN.sub("", client.get("/docs").text)
            (pages / "docs.html").write_text(page, encoding="utf-8")
            (pages / "openapi.json").write_text(client.get("/openapi.json").text)
        handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--hide-scrollbars"),
                *("--window-size=1100,755", "--virtual-time-budget=20000"),
                f"--user-data-dir={folder}/chromium",
                f"--screenshot={IMAGES / 'docs.png'}",
                f"http://127.0.0.1:{server.server_port}/docs.html",
            ],
            check=True,
        )
        server.shutdown()


def main() -> None:
    """Make both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swagger", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    draw_prompts(options.home)
    draw_docs(options.home / SLUG, options.swagger)
    shutil.rmtree(options.home / SLUG)


if __name__ == "__main__":
    main()
