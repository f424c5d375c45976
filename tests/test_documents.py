"""What users read must be what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from swap.sandbox.scenarios import SCENARIOS, scenario_addresses
from swap.settings import SECRETS, SETTING_NAMES, Settings

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


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_lifecycle_document_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/make_lifecycle.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_relative_links_of_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for link in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
