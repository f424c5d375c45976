"""Secrets at rest, and rotation of the keys they lie under."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swap.errors import SwapError
from swap.infra.vault import Vault

OLD = "the old text, of at least 32 characters"
NEW = "the new text, of at least 32 characters"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_what_is_sealed_opens_again_and_does_not_show(secret: str) -> None:
    vault = Vault([OLD])
    sealed = vault.seal(secret)
    assert vault.unseal(sealed) == secret
    assert len(secret) < 8 or secret not in sealed
    assert sealed != vault.seal(secret)


def test_rotation_keeps_old_secrets_open_until_their_key_is_taken_out() -> None:
    sealed = Vault([OLD]).seal("s3cret")
    assert Vault([NEW, OLD]).unseal(sealed) == "s3cret"
    with pytest.raises(SwapError) as caught:
        Vault([NEW]).unseal(sealed)
    assert caught.value.code == "SEALED_SECRET"
    assert caught.value.__cause__ is None
    assert "s3cret" not in str(caught.value)


def test_the_first_key_seals() -> None:
    sealed = Vault([NEW, OLD]).seal("s3cret")
    assert Vault([NEW]).unseal(sealed) == "s3cret"
    with pytest.raises(SwapError):
        Vault([OLD]).unseal(sealed)


@pytest.mark.parametrize("broken", ["", "x", "gAAAAA", "ä", "\ud800"])
def test_what_was_never_sealed_does_not_open(broken: str) -> None:
    with pytest.raises(SwapError):
        Vault([OLD]).unseal(broken)


def test_a_sealed_text_cannot_be_changed() -> None:
    sealed = Vault([OLD]).seal("s3cret")
    middle = len(sealed) // 2
    changed = sealed[:middle] + ("A" if sealed[middle] != "A" else "B") + sealed[middle + 1 :]
    with pytest.raises(SwapError):
        Vault([OLD]).unseal(changed)


def test_each_purpose_has_keys_of_its_own_and_the_current_one_comes_first() -> None:
    vault = Vault([NEW, OLD])
    quote, seal = vault.keys("quote"), vault.keys("seal")
    assert len({*quote, *seal}) == 4
    assert all(len(key) == 32 for key in (*quote, *seal))
    assert quote == [*Vault([NEW]).keys("quote"), *Vault([OLD]).keys("quote")]


def test_a_vault_needs_a_key_and_shows_none() -> None:
    with pytest.raises(ValueError):
        Vault([])
    assert repr(Vault([OLD])) == "Vault(1 keys)"
