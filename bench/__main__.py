"""Runs benchmarks: `python -m bench [names]`. Every module of this package that has `run()` is one."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import bench


def main() -> None:
    names = sys.argv[1:] or sorted(module.name for module in pkgutil.iter_modules(bench.__path__))
    for name in names:
        if name in ("__main__", "referee_worker"):
            continue
        run = getattr(importlib.import_module(f"bench.{name}"), "run", None)
        if run is not None:
            run()
        elif name in sys.argv[1:]:
            sys.exit(f"bench.{name} has no run()")


if __name__ == "__main__":
    main()
