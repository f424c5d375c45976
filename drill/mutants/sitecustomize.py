"""Imported by every Python that starts with this folder on its path: breaks the service as DRILL_MUTANT says.

A patch is applied when its module has been executed, before anybody can import a name from it. A patch that finds nothing
to replace ends the process: a break that was not applied must not count as one that was survived.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from patches import PATCHES  # type: ignore[import-not-found] # beside this file, which is on the path by itself

_NAME = os.environ.get("DRILL_MUTANT", "")


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: importlib.abc.Loader, patch: Callable[[ModuleType], None]) -> None:
        self._inner, self._patch = inner, patch

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        try:
            self._patch(module)
        except Exception as error:
            sys.stderr.write(f"drill.mutant_broken {_NAME} in {module.__name__}: {error!r}\n")
            os._exit(70)
        sys.stderr.write(f"drill.mutant_applied {_NAME} in {module.__name__}\n")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, patches: dict[str, Callable[[ModuleType], None]]) -> None:
        self._patches = patches

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._patches:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._patches[name])
        return spec


if _NAME:
    sys.meta_path.insert(0, _Finder(PATCHES[_NAME]))
