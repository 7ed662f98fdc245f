"""Takes the README's pictures and the social card from the site that was built last.

Run it when they have changed: `.venv/bin/python -m docs.site.pictures`.
"""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, sync_playwright

from docs.site.renderings import ROOT

SITE = ROOT / "build" / "site"
EXPLORER = (
    "explorer.html?io=async&orm=sqlalchemy&commit=manual&pattern=unit_of_work"
    "&example=true&from=async-sqlalchemy-auto-repository-true"
    "&file=app/orders/service.py&layout=split"
)


def take(browser: Browser) -> None:
    """Write the pictures."""
    for scheme in ("light", "dark"):
        page = browser.new_page(
            viewport={"width": 1240, "height": 720}, color_scheme=scheme
        )
        page.goto(f"{SITE.as_uri()}/{EXPLORER}")
        page.wait_for_selector("#lines ins")
        page.locator("#lines").evaluate("(lines) => lines.scrollTo(0, 250)")
        page.screenshot(path=ROOT / "docs" / "images" / f"explorer-{scheme}.png")
    page = browser.new_page(
        viewport={"width": 1200, "height": 630}, color_scheme="light"
    )
    page.goto(f"{SITE.as_uri()}/index.html")
    page.add_style_tag(
        content=".top, .actions, .hero .code { display: none }"
        ".home main { width: 1060px } .hero { height: 630px }"
    )
    social = ROOT / "docs" / "site" / "static" / "social.jpg"
    page.screenshot(path=social, type="jpeg", quality=60)


if __name__ == "__main__":
    with sync_playwright() as playwright:
        found = shutil.which("chromium")
        started = playwright.chromium.launch(executable_path=found)
        take(started)
        started.close()
