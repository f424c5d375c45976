"""What users read must be what the code does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from websockets.exceptions import ConnectionClosed

from swap.sandbox.scenarios import SCENARIOS, scenario_addresses
from swap.settings import SECRETS, SETTING_NAMES, Settings
from swap.tables import OrderEvent
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


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_relative_links_of_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for link in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


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
