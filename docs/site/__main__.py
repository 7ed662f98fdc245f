"""Builds the site: `.venv/bin/python -m docs.site`."""

from __future__ import annotations

import argparse
from pathlib import Path

from docs.site.build import build
from docs.site.renderings import ROOT

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m docs.site", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--address", default="", help="where it will be served")
    options = parser.parse_args()
    size = build(options.output, options.address)
    print(f"{options.output}: {size / 1e6:.1f} MB")
