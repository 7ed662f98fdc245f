"""All models of the project, wherever they are."""

import pkgutil
from functools import cache
from importlib import import_module

import app


@cache
def import_models() -> None:
    """Import every `app.*.models`: tables refer to each other by name."""
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if module.name.endswith(".models"):
            import_module(module.name)
