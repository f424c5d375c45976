"""What users read must be what the code does."""

from __future__ import annotations

import ast
import asyncio
import io
import re
import runpy
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from websockets.exceptions import ConnectionClosed

from swap.sandbox.scenarios import SCENARIOS, scenario_addresses
from swap.settings import SECRETS, SETTING_NAMES, Settings
from swap.tables import OrderEvent
from swap.web.reply import ERROR_DOCUMENT
from swap.wiring import Service
from tests.conftest import Shop
from tests.factories import make_orders
from tests.streams import streaming

ROOT = Path(__file__).resolve().parents[1]


def test_the_settings_example_lists_every_setting_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text()
    assert sorted(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)) == sorted(SETTING_NAMES)


def test_the_settings_example_names_every_secret_that_can_be_a_file() -> None:
    text = (ROOT / ".env.example").read_text()
    intro = text[: text.index("\n\n")]
    assert [name for name in SECRETS if name not in intro] == []


def test_the_settings_example_is_a_valid_environment_with_the_default_values() -> None:
    pairs = re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert Settings.from_env(dict(pairs)) == Settings.from_env({})


def test_the_readme_lists_every_scenario_with_its_address() -> None:
    text = (ROOT / "README.md").read_text()
    for name, addresses in scenario_addresses().items():
        assert f"| `{addresses['XRP']}` | **{name}**: {SCENARIOS[name].meaning} |" in text


def test_every_make_target_that_readme_and_contributing_name_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    texts = [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")]
    for target in {name for text in texts for name in re.findall(r"(?:`|^(?:\$ )?)make ([a-z-]+)", text, re.MULTILINE)}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_relative_links_of_the_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_the_document_of_errors_is_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "docs" / "make_errors.py"))["main"]
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_code_without_a_meaning_or_a_meaning_without_a_code_is_noticed() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_errors.py"))
    table = script["read_table"]()
    del table["request"]["STOPPING"]
    table["field"]["NEVER_RAISED"] = {"fields": "`amount`", "meaning": "Nothing."}
    table["request"]["ENDPOINT_DISABLED"]["status"] = 410
    missing, gone, wrong = script["mistakes"](table)
    assert missing.startswith("STOPPING is in the code")
    assert gone.startswith("NEVER_RAISED is in docs/errors.toml")
    assert wrong.startswith("ENDPOINT_DISABLED answers [(409, 'never')]")


def test_every_code_has_one_anchor_that_an_answer_can_lead_to() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_errors.py"))
    anchors = re.findall(r'<a id="([^"]*)"></a>', (ROOT / ERROR_DOCUMENT).read_text())
    assert sorted(anchors) == sorted(
        {code.lower() for code in script["documented"](script["read_table"]())} | {"others"}
    )


def test_every_form_in_which_a_code_is_written_is_found() -> None:
    codes_in = runpy.run_path(str(ROOT / "docs" / "make_errors.py"))["codes_in"]
    forms = """
raise Conflict("no", code="AS_KEYWORD")
raise InvalidRequest.on(name, "AS_ARGUMENT", "message")
problem = FieldProblem("AS_FIRST", "message")
found[name] = {"code": "AS_VALUE", "message": "..."}
code = f"{field.upper()}_MISSPELT"
class Gone(ServiceError):
    code = "AS_ATTRIBUTE"
"""
    literal = {"AS_KEYWORD", "AS_ARGUMENT", "AS_FIRST", "AS_VALUE", "AS_ATTRIBUTE"}
    assert {*codes_in(ast.parse(forms))} == literal | {"ADDRESS_MISSPELT", "MEMO_MISSPELT"}


def test_every_event_that_warns_is_explained_and_no_other() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    section = text[text.index("\n## What the log says") :]
    section = section[: section.index("\n## ", 1)]
    explained = {
        (name, level)
        for names, level in re.findall(r"^\| (`[^|]+`) \| (warning|error|critical) \|", section, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", names)
    }
    logged = {event for tree in parsed("swap", "workers") for event in events_of(tree)}
    assert logged - explained == set(), "logged, but not explained in docs/operations.md"
    assert explained - logged == set(), "explained in docs/operations.md, but never logged so"


def events_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Name and level of every event of level warning or above that a module logs."""
    levels = {"warning": "warning", "error": "error", "exception": "error", "critical": "critical"}
    named = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            # A line that is written by hand, since the log itself has failed.
            row = {
                ast.unparse(key): value for key, value in zip(node.keys, node.values, strict=True) if key is not None
            }
            name, level = row.get("'event'"), row.get("'level'")
            if isinstance(name, ast.Constant) and isinstance(level, ast.Constant):
                yield str(name.value), str(level.value)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in levels:
            continue
        if ast.unparse(node.func.value) not in ("log", "structlog.get_logger()"):
            continue
        event = node.args[0]
        if isinstance(event, ast.Name):
            event = named[event.id]
        if isinstance(event, ast.JoinedStr):
            # The part that varies is written in capitals: reconcile.KIND.
            parts = (
                part.value if isinstance(part, ast.Constant) else ast.unparse(part.value).upper()
                for part in event.values
                if isinstance(part, ast.Constant | ast.FormattedValue)
            )
            yield "".join(map(str, parts)), levels[node.func.attr]
        else:
            yield str(ast.literal_eval(event)), levels[node.func.attr]


# --- the map ---------------------------------------------------------------------------------------------------------


def test_the_floors_in_the_map_are_those_that_imports_are_checked_by() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [{name.strip() for name in layer.split("|")} for layer in contract["layers"]]
    text = (ROOT / "docs/architecture.md").read_text()
    table = text[text.index("\n## Floors") : text.index("\n### Where do I put a new file?")]
    assert [set(re.findall(r"`(\w+)`", row)) for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)] == layers


def test_every_package_says_what_it_holds() -> None:
    packages = {path.parent.name: ast.parse(path.read_text()) for path in (ROOT / "swap").rglob("__init__.py")}
    assert [name for name, module in packages.items() if not ast.get_docstring(module)] == []
    assert len(packages["swap"].body) == 1, "the map imports nothing"


# --- citations -------------------------------------------------------------------------------------------------------

DOCUMENTS = (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")))
SOURCES = [
    path for folder in ("swap", "workers", "tests", "drill", "bench", "docs") for path in (ROOT / folder).rglob("*.py")
]
OTHERS = [ROOT / name for name in ("Makefile", "pyproject.toml", ".env.example", ".ci/run")]


def parsed(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield ast.parse(path.read_text())


@cache
def prose_of(path: Path) -> str:
    """What is written for people, on one line: a document, or docstrings, comments and, in the service itself, sentences."""
    text = path.read_text()
    if path.suffix == ".py":
        tree = ast.parse(text)
        nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docstrings = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, nodes)]
        constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        sentences = [value for value in constants if isinstance(value, str) and " " in value]
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        # One after the other, since a citation may go on in the next line.
        comments = " ".join(token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)
        text = "\n".join((*docstrings, *(sentences if path.is_relative_to(ROOT / "swap") else ()), comments))
    return " ".join(text.split())


@cache
def headings_of(document: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    return {heading.replace("`", "") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def document_named(name: str, beside: Path) -> Path:
    return next(
        (path for path in (ROOT / name, beside.parent / name, ROOT / "docs" / name) if path.is_file()), ROOT / name
    )


def test_every_document_that_is_cited_exists() -> None:
    for path in (*DOCUMENTS, *SOURCES, *OTHERS):
        for name in re.findall(r"(?<![\w./-])(?:docs/[\w./-]+\.(?:md|py|toml)|[A-Z]{4,}\.md)\b", path.read_text()):
            assert (ROOT / name).is_file(), f"{path}: {name}"


def test_every_heading_that_is_cited_exists() -> None:
    for path in (*DOCUMENTS, *SOURCES, *OTHERS):
        text = prose_of(path)
        cited = re.findall(r'((?:docs/)?[\w-]+\.md)(?:\)|`)*,? "([^"]+)"', text)
        if path.suffix == ".md":
            cited += [(path.name, heading) for heading in re.findall(r'\bsee "([^"]+)"', text)]
        for name, heading in cited:
            assert heading in headings_of(document_named(name, path)), f"{path}: {name}, {heading}"
        for name, target in re.findall(
            r"\]\((?!http)([^)#]*)#([^)]+)\)", path.read_text() if path.suffix == ".md" else ""
        ):
            document = path.parent / name if name else path
            assert target in map(anchor, headings_of(document)), f"{path}: {name}#{target}"


def test_every_label_of_the_upstreams_protocol_that_is_cited_exists() -> None:
    protocol = (ROOT / "docs/upstream.md").read_text()
    labels = {*re.findall(r"^(?:### |\| )([ETCV]\d+[a-e]?!?) ", protocol, re.MULTILINE)}
    assert {"E1", "E3c", "E11", "T17", "C23", "V5e", "V4!"} <= labels
    for path in (*DOCUMENTS, *SOURCES):
        text = re.sub(r"https?:\S+|noqa: [\w, ]+|T1 to T17|V1 to V5e", "", prose_of(path))
        for label in re.findall(r"(?<![\w%#+/.-])[ETCV]\d{1,2}[a-e]?!?(?![\w])", text):
            assert label in labels or label.rstrip("!") in labels, f"{path}: {label}"


def test_every_section_of_the_upstreams_protocol_that_is_cited_exists() -> None:
    protocol = (ROOT / "docs/upstream.md").read_text()
    sections = dict(re.findall(r"^## (\d)\. .*?\n(.*?)(?=^## |\Z)", protocol, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == [str(number) for number in range(1, 10)]
    for path in (*DOCUMENTS, *SOURCES):
        text = re.sub(r"(?:RFC \d+,?|SEC 2,) section [\d.]+", "", prose_of(path))
        assert not re.search(r"docs/upstream\.md,? \d", text), f"{path}: a section is cited as: section N"
        for number, kind, name in re.findall(r"\bsection (\d+)(?:,? (?:classifier )?(row|rule|shape) (\w+))?", text):
            assert number in sections, f"{path}: section {number}"
            forms = {"row": rf"^\| {name} \|", "rule": rf"^{name}\. ", "shape": rf"\*\*Shape {name}\*\*", "": ""}
            assert re.search(forms[kind], sections[number], re.MULTILINE), f"{path}: section {number}, {kind} {name}"


def test_every_module_that_is_named_exists() -> None:
    for path in (*DOCUMENTS, *SOURCES):
        text = re.sub(r"https?:\S+|swap\.db", "", prose_of(path))
        for name in re.findall(r"(?<![\w./@-])(?:swap|workers|drill|bench|tests)(?:\.[A-Za-z_]\w*)+(?![\w/-])", text):
            assert is_known(name), f"{path}: {name}"
    for document in DOCUMENTS:
        for name in re.findall(
            r"`((?:swap|workers|drill|bench|tests|docs|migrations)/[\w./-]*)`", document.read_text()
        ):
            assert (ROOT / name).exists(), f"{document}: {name}"


def is_known(dotted: str) -> bool:
    """Whether the name is a module, or something that a module defines or imports."""
    path = ROOT
    parts = dotted.split(".")
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if not parts:
        return True
    module = path / f"{parts[0]}.py"
    if module.is_file():
        parts.pop(0)
    else:
        module = path / "__init__.py"
    return not parts or re.search(rf"\b{parts[0]}\b", module.read_text()) is not None


# --- recipes ---------------------------------------------------------------------------------------------------------


def test_the_python_recipe_of_the_stream_document_resumes_and_ends_as_it_says(
    service: Service, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (recipe,) = re.findall(r"```python\n(import asyncio.*?)```", (ROOT / "docs/stream.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(recipe, names)  # the document's own words
    make_orders(service.database, 3, shop.client_id)
    service.feed.publish()
    dealt: list[str] = []

    async def deal_with(event: dict[str, Any]) -> None:
        if len(dealt) == 1 and not cut:
            cut.append(1)
            raise OSError("the network")
        dealt.append(event["id"])
        if len(dealt) == 3:
            service.keys.revoke(shop.key)

    cut: list[int] = []
    monkeypatch.setattr("swap.stream.server._CHECK_SECONDS", 0.1)
    start = shop.api.events(types="order.expired")["next"][12:]
    with streaming(service) as running, pytest.raises(ConnectionClosed) as ended:
        asyncio.run(names["follow"](running.url, shop.key, shop.secret, "000000000000" + start, deal_with))
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 4403
    with service.database.read() as session:
        assert dealt == list(session.scalars(select(OrderEvent.id).order_by(OrderEvent.position)))
    assert cut
