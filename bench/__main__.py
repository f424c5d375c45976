"""Runs benchmarks: `python -m bench [names]`. Every module of this package that has `run()` is one."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import bench


def main() -> None:
    asked = sys.argv[1:]
    for name in asked or sorted(module.name for module in pkgutil.iter_modules(bench.__path__)):
        run = None if name == "__main__" else getattr(importlib.import_module(f"bench.{name}"), "run", None)
        if run is not None:
            run()
        elif asked:
            sys.exit(f"bench.{name} has no run()")


if __name__ == "__main__":
    main()
