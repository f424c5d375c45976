"""Writes docs/errors.md from docs/errors.toml. `--check` compares, and compares the table with the code: exit 1 if stale.

A code is any upper-case text in the code, whatever the form it is raised in: a new one must be explained in the table, or
be listed there as no error code. So a code that nobody has documented cannot slip through by being written in a new way.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from swap import errors
from swap.settings import SETTING_NAMES
from swap.web.problems import STATUSES

ROOT = Path(__file__).resolve().parent.parent
TARGET, TABLE = Path(__file__).with_name("errors.md"), Path(__file__).with_name("errors.toml")
KINDS = ("request", "field", "stream", "upstream", "kind", "elsewhere")

# Pure rules, the sandbox and the command line answer no caller of the API.
_LEFT_OUT = {"addresses", "cli.py", "domain", "sandbox", "settings", "tools"}
_CODE = re.compile(r"[A-Z][A-Z0-9_]{3,}")
_ENDING = re.compile(r"_[A-Z][A-Z0-9_]+")

_RETRIES = ("same_request", "new_request", "never")

Answer = tuple[int, str]


def read_table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def documented(table: dict[str, dict[str, Any]]) -> set[str]:
    """Every code that the table explains."""
    return {code for kind in KINDS for code in table[kind]}


# --- what the code says ----------------------------------------------------------------------------------------------


def trees() -> Iterator[ast.Module]:
    for path in sorted((ROOT / "swap").rglob("*.py")):
        if path.relative_to(ROOT / "swap").parts[0] not in _LEFT_OUT:
            yield ast.parse(path.read_text(encoding="utf-8"), str(path))


def codes_in(tree: ast.Module) -> Iterator[str]:
    """Upper-case texts; of one that is put together (`f"{field}_INVALID"`) both codes that it can become."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            last = node.values[-1]
            if isinstance(last, ast.Constant) and isinstance(last.value, str) and _ENDING.fullmatch(last.value):
                yield from (f"{field}{last.value}" for field in ("ADDRESS", "MEMO"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _CODE.fullmatch(node.value):
            yield node.value


def answers_in(tree: ast.Module) -> Iterator[tuple[str, Answer]]:
    """Code -> HTTP status and `retry`, of each error that is constructed with its code by name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        kind = getattr(errors, ast.unparse(node.func), None)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        code = _texts(given.get("code"))
        if code and isinstance(kind, type) and issubclass(kind, errors.ServiceError):
            status = next(each for base, each in STATUSES if issubclass(kind, base))
            for retry in [word for word in _texts(given.get("retry")) if word in _RETRIES] or [kind.retry]:
                yield code[0], (status, retry)


def _texts(node: ast.expr | None) -> list[str]:
    parts = [] if node is None else ast.walk(node)
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def mistakes(table: dict[str, dict[str, Any]]) -> list[str]:
    """Where the table and the code differ, as sentences."""
    codes: set[str] = set()
    answers: dict[str, set[Answer]] = {}
    for tree in trees():
        codes |= {*codes_in(tree)} - {*SETTING_NAMES}
        for code, answer in answers_in(tree):
            answers.setdefault(code, set()).add(answer)
    known, others = documented(table), {text for texts in table["not_errors"].values() for text in texts}
    return [
        *(f"{code} is in the code, not in docs/errors.toml" for code in sorted(codes - known - others)),
        *(f"{code} is in docs/errors.toml, not in the code" for code in sorted((known | others) - codes)),
        *(f"{code} is both an error code and none" for code in sorted(known & others)),
        *(
            f"{code} answers {sorted(answers[code])}, docs/errors.toml says {row['status']}, {row['retry']}"
            for code, row in table["request"].items()
            if code in answers and not {(row["status"], retry) for retry in _retries(row)} <= answers[code]
        ),
    ]


# --- the document ----------------------------------------------------------------------------------------------------


def render(table: dict[str, dict[str, Any]]) -> str:
    # A code stands in more than one table at times; `doc_url` of an answer leads to the first.
    anchored: set[str] = set()

    def code_cell(code: str) -> str:
        if code in anchored:
            return f"`{code}`"
        anchored.add(code)
        return f'<a id="{code.lower()}"></a>`{code}`'

    def meanings(rows: dict[str, Any]) -> str:
        return "\n".join(f"| {code_cell(code)} | {row['meaning']} |" for code, row in rows.items())

    requests = [
        f"| {code_cell(code)} | {row['status']} | {row['meaning']} | {row['do']} |"
        f" {' or '.join(f'`{r}`' for r in _retries(row))} |"
        for code, row in table["request"].items()
    ]
    fields = [f"| {code_cell(code)} | {row['fields']} | {row['meaning']} |" for code, row in table["field"].items()]
    return _DOCUMENT.format(
        requests="\n".join(requests),
        fields="\n".join(fields),
        kinds=", ".join(f"{code_cell(code)} ({row['meaning']})" for code, row in table["kind"].items()),
        **{kind: meanings(table[kind]) for kind in ("stream", "upstream", "elsewhere")},
    )


def _retries(row: dict[str, Any]) -> list[str]:
    return [row["retry"]] if isinstance(row["retry"], str) else row["retry"]


_DOCUMENT = """# Errors

Generated by `docs/make_errors.py` from `docs/errors.toml`; do not edit.

```json
{{"success": false, "error": {{"code": "VALIDATION_FAILED", "message": "The request has problems in: amount.",
 "details": {{"fields": {{"amount": [{{"code": "TOO_MANY_DECIMALS", "message": "...", "max_decimals": 8}}]}},
  "retry": "new_request"}}, "request_id": "5b1c0a4e9d3f4f6a8a5d2c7e1f0b9a38",
 "doc_url": "docs/errors.md#validation_failed"}}, "timestamp": 1795228975694}}
```

Programs go by `code` and `details.retry`; `message` is for people and may change. There will be more codes: treat one
that you do not know by its HTTP status and its `retry`. `request_id` is the header `X-Request-Id`: log it, and tell it to
support. `doc_url` leads to the row below that explains the code: a path in the source of the service, which serves no
documents itself.

| `retry` | what to do |
|---|---|
| `same_request` | send the very same fields again, after `Retry-After` where there is one, and sign anew |
| `new_request` | sending the same again is pointless: correct the request, or its signature |
| `never` | no corrected copy of this request will succeed; the table says what else to do |

## Codes of an answer

| code | status | meaning | what to do | retry |
|---|---|---|---|---|
{requests}

<a id="others"></a>
An order whose first attempt never reached the upstream can fail at the next one, because its quote has run out or its
pair is gone. Then the answer is 422 with `new_request`, its code is that of the field (`QUOTE_EXPIRED`,
`PAIR_UNAVAILABLE` and the like), and the order is kept as failed. Refusals of the HTTP layer that are not in the table
are called by the name of their status, such as `BAD_REQUEST`, with `never`; their `doc_url` leads here.

## Problems of fields

`details.fields` maps the name of a field (`from.currency` for a nested one) to its problems. More about addresses and
memos: [addresses.md](addresses.md).

| code | fields | meaning |
|---|---|---|
{fields}

## Codes of the stream

Error messages on a WebSocket also carry the codes of keys, tokens and cursors above. Close codes, and what to do:
[stream.md](stream.md).

| code | meaning |
|---|---|
{stream}

## Failures of the upstream

These stand in `details.cause` of `RATE_UNAVAILABLE`, in the attempts of `swap orders show`, and in log lines.

| code | meaning |
|---|---|
{upstream}

## Codes outside the API's answers

| code | meaning |
|---|---|
{elsewhere}

Each kind of error also has a default code, which no answer carries today, because every error names a more exact one:
{kinds}.
"""


def main(argv: list[str]) -> int:
    table = read_table()
    text, problems = render(table), mistakes(table)
    if "--check" not in argv:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text:
        problems.append("docs/errors.md is not what docs/errors.toml says; run: make docs")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
