"""Settings: strict, all mistakes at once, and never a secret in what is said about them."""

from __future__ import annotations

import re
from dataclasses import fields
from decimal import Decimal
from pathlib import Path

import pytest

from swap.errors import ConfigurationError
from swap.settings import SECRETS, SETTING_NAMES, Settings, is_loopback, state_folder
from swap.wiring import known_secrets

PRODUCTION = {
    "SWAP_ENV": "production",
    "DATABASE_URL": "postgresql://swap:pg-password-1@db/swap",
    "REDIS_URL": "redis://:redis-password-1@cache/0",
    "UPSTREAM_URL": "https://upstream.example",
    "UPSTREAM_PUBLIC_KEY": "pk_live_1",
    "UPSTREAM_SECRET_KEY": "sk_live_very_secret_1",
    "SWAP_SECRET_KEYS": "a production text of at least 32 characters",
}
GOOD_SECRETS = {
    "DATABASE_URL": ("postgresql://swap:pg-password-1@db/swap", "pg-password-1"),
    "REDIS_URL": ("redis://:redis-password-1@cache/0", "redis-password-1"),
    "UPSTREAM_SECRET_KEY": ("sk_secret_value_1", "sk_secret_value_1"),
    "UPSTREAM_OLD_KEYS": ("pk_1:old_secret_value_1, pk_2:old_secret_value_2", "old_secret_value_2"),
    "UPSTREAM_PROXY": ("http://user:proxy-password-1@proxy:3128", "proxy-password-1"),
    "SWAP_SECRET_KEYS": ("s" * 32 + "," + "t" * 40, "s" * 32),
}


def read(**environ: str) -> Settings:
    return Settings.from_env(environ)


def mistakes(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ)
    assert caught.value.message == "; ".join(caught.value.mistakes)
    return caught.value.mistakes


def test_nothing_given_is_a_development_service_on_this_machine() -> None:
    settings = read()
    assert not settings.production
    assert settings.database_url.startswith("sqlite:////")
    assert is_loopback(settings.upstream_url)
    assert (settings.upstream_create_timeout, settings.upstream_read_timeout) == (15.0, 12.0)
    assert (settings.time_scale, settings.drain_seconds, settings.fallback_threads) == (Decimal(1), 10.0, 4)


def test_a_checkout_keeps_its_state_in_var() -> None:
    assert state_folder() == Path(__file__).resolve().parents[1] / "var"
    settings = read()
    assert settings.var == state_folder()
    assert settings.database_url == f"sqlite:///{state_folder() / 'swap.db'}"


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({}, "/home/user/.local/state/swap"),
        ({"XDG_STATE_HOME": ""}, "/home/user/.local/state/swap"),
        ({"XDG_STATE_HOME": "relative"}, "/home/user/.local/state/swap"),
        ({"XDG_STATE_HOME": "/srv/state"}, "/srv/state/swap"),
    ],
)
def test_an_installed_package_keeps_its_state_in_the_users_folder(
    environ: dict[str, str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "swap" / "migrations").mkdir(parents=True)
    monkeypatch.setattr("swap.settings.__file__", str(tmp_path / "swap" / "settings" / "__init__.py"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/user")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert state_folder() == Path(folder)
    settings = read()
    assert (settings.var, settings.database_url) == (Path(folder), f"sqlite:///{folder}/swap.db")


def test_every_mistake_is_told_at_once_and_none_repeats_its_value() -> None:
    bad = {
        "SWAP_ENV": "staging-BAD",
        "DATABASE_URL": "mysql://root:BAD-password@db/x",
        "REDIS_URL": "http://:BAD-password@cache",
        "UPSTREAM_URL": "https://user:BAD-password@host.example",
        "UPSTREAM_PUBLIC_KEY": "BAD\nkey",
        "UPSTREAM_SECRET_KEY": "BAD\x01secret",
        "UPSTREAM_OLD_KEYS": "BAD-secret-without-its-key",
        "UPSTREAM_USER_AGENT": "BAD-ü",
        "UPSTREAM_PROXY": "socks5://user:BAD-password@proxy",
        "UPSTREAM_REFERRER_ID": "BAD\x7f",
        "UPSTREAM_MARKUP": "-1BAD",
        "UPSTREAM_RPS": "0",
        "UPSTREAM_CREATE_TIMEOUT": "25.5",
        "UPSTREAM_READ_TIMEOUT": "BAD",
        "SWAP_SECRET_KEYS": "BAD-too-short",
        "SWAP_TIME_SCALE": "0.5",
        "RATE_MAX_AGE": "86401",
        "RATE_TOLERANCE": "BAD",
        "SWAP_WEBHOOK_ALLOW_PRIVATE": "yes-BAD",
        "SWAP_ALLOW_LIVE_UPSTREAM": "true-BAD",
        "SWAP_ALLOWED_ORIGINS": "https://shop.example/BAD",
        "SWAP_TRUSTED_PROXIES": "10.0.0.0/8,BAD",
        "SWAP_API_BIND": "BAD",
        "SWAP_STREAM_BIND": "127.0.0.1:65536",
        "SWAP_ADMIN_BIND": ":80",
        "SWAP_DRAIN_SECONDS": "0",
        "SWAP_MAX_CREATES": "0",
        "SWAP_CREATE_ATTEMPTS": "0",
        "SWAP_SPARE_LIMIT": "BAD",
        "SWAP_FALLBACK_THREADS": "1.5",
        "LOG_LEVEL": "LOUD-BAD",
    }
    assert set(bad) == set(SETTING_NAMES)
    found = mistakes(**bad)
    assert [sentence.split(" ")[0] for sentence in found] == list(SETTING_NAMES)
    assert "BAD" not in "; ".join(found)


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_an_empty_text_counts_as_not_given(name: str) -> None:
    assert read(**{name: ""}) == read()


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_may_come_from_a_file(name: str, tmp_path: Path) -> None:
    value, _ = GOOD_SECRETS[name]
    file = tmp_path / "secret"
    file.write_text(value + "\n", encoding="utf-8")
    more = {"UPSTREAM_PUBLIC_KEY": "pk"} if name == "UPSTREAM_SECRET_KEY" else {}
    assert read(**more, **{f"{name}_FILE": str(file)}) == read(**more, **{name: value})


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_file_that_is_of_no_use_is_one_mistake_and_no_default(name: str, tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe")
    for path, sentence in (
        (empty, "names an empty file"),
        (binary, "names a file that cannot be read"),
        (tmp_path / "missing", "names a file that cannot be read"),
        (tmp_path, "names a file that cannot be read"),
    ):
        # In production "must be given" would be a second sentence about the same slip.
        environ = {**PRODUCTION, f"{name}_FILE": str(path)}
        environ.pop(name, None)
        assert mistakes(**environ) == [f"{name}_FILE {sentence}"]


def test_a_secret_given_twice_is_a_mistake_even_when_both_agree(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(PRODUCTION["SWAP_SECRET_KEYS"], encoding="utf-8")
    assert mistakes(**PRODUCTION, SWAP_SECRET_KEYS_FILE=str(file)) == [
        "SWAP_SECRET_KEYS and SWAP_SECRET_KEYS_FILE are both given; keep one"
    ]


def test_secrets_are_taken_out_of_the_environment_they_came_from() -> None:
    environ = {name: value for name, (value, _) in GOOD_SECRETS.items()}
    environ |= {"UPSTREAM_PUBLIC_KEY": "pk", "PATH": "/bin"}
    Settings.from_env(environ)
    assert environ == {"UPSTREAM_PUBLIC_KEY": "pk", "PATH": "/bin"}


def test_secrets_are_taken_out_even_when_the_settings_are_refused() -> None:
    environ = {name: value for name, (value, _) in GOOD_SECRETS.items()} | {"SWAP_ENV": "x"}
    with pytest.raises(ConfigurationError):
        Settings.from_env(environ)
    assert set(environ) == {"SWAP_ENV"}


def test_no_secret_is_in_the_repr() -> None:
    environ = {name: value for name, (value, _) in GOOD_SECRETS.items()} | {"UPSTREAM_PUBLIC_KEY": "pk_shown"}
    shown = repr(Settings.from_env(environ))
    assert "pk_shown" in shown
    for _, secret in GOOD_SECRETS.values():
        assert secret not in shown


def test_the_logs_are_told_every_secret() -> None:
    environ = {name: value for name, (value, _) in GOOD_SECRETS.items()} | {"UPSTREAM_PUBLIC_KEY": "pk"}
    told = set(known_secrets(Settings.from_env(environ)))
    assert {secret for _, secret in GOOD_SECRETS.values()} <= told


def test_production_refuses_to_start_on_defaults() -> None:
    assert mistakes(SWAP_ENV="production") == [
        f"{name} must be given in production"
        for name in ("DATABASE_URL", "REDIS_URL", "SWAP_SECRET_KEYS", "UPSTREAM_URL", "UPSTREAM_PUBLIC_KEY")
    ]


@pytest.mark.parametrize("name", [name for name in PRODUCTION if name != "SWAP_ENV"])
def test_production_needs_each_of_its_settings(name: str) -> None:
    assert Settings.from_env(dict(PRODUCTION)).production
    found = mistakes(**{**PRODUCTION, name: ""})
    assert len(found) <= 3
    assert any(name in sentence for sentence in found)


@pytest.mark.parametrize("name", ["UPSTREAM_PUBLIC_KEY", "UPSTREAM_SECRET_KEY"])
def test_production_refuses_sandbox_keys(name: str) -> None:
    found = mistakes(**{**PRODUCTION, name: "xk_SandBox_local"})
    assert found == [f"{name} is the sandbox's; production needs a real one"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("UPSTREAM_OLD_KEYS", "pk_sandbox_local:sk_1", "UPSTREAM_OLD_KEYS is the sandbox's"),
        ("UPSTREAM_OLD_KEYS", "pk_1:secret,pk_2:sk_SANDBOX", "UPSTREAM_OLD_KEYS is the sandbox's"),
        ("SWAP_WEBHOOK_ALLOW_PRIVATE", "1", "SWAP_WEBHOOK_ALLOW_PRIVATE=1 is for development"),
        ("REDIS_URL", "redis://cache/0", "REDIS_URL must have a password"),
        ("REDIS_URL", "redis://user@cache/0", "REDIS_URL must have a password"),
        ("REDIS_URL", "rediss://cache/0", "REDIS_URL must have a password"),
        ("SWAP_SECRET_KEYS", "k" * 32, "SWAP_SECRET_KEYS must be random"),
        ("SWAP_SECRET_KEYS", PRODUCTION["SWAP_SECRET_KEYS"] + "," + "abcd" * 8, "SWAP_SECRET_KEYS must be random"),
        ("UPSTREAM_SECRET_KEY", PRODUCTION["SWAP_SECRET_KEYS"], "each secret has one use"),
    ],
)
def test_production_refuses_what_switches_a_protection_off(name: str, value: str, told: str) -> None:
    (found,) = mistakes(**{**PRODUCTION, name: value})
    assert told in found
    assert value == "1" or value not in found
    development = {**PRODUCTION, "SWAP_ENV": "development", "SWAP_ALLOW_LIVE_UPSTREAM": "1"}
    assert not read(**{**development, name: value}).warnings()


def test_production_never_scales_time_even_with_an_upstream_on_this_machine() -> None:
    found = mistakes(**PRODUCTION | {"SWAP_TIME_SCALE": "50", "UPSTREAM_URL": "http://127.0.0.1:8090"})
    assert found == ["SWAP_TIME_SCALE other than 1 is for development: orders would be given up before their time"]


@pytest.mark.parametrize(
    "url", ["unix:///run/redis.sock", "rediss://:a-password@cache/0", "redis://127.0.0.1/0?password=a-password"]
)
def test_production_takes_redis_with_a_password_or_a_socket(url: str) -> None:
    assert read(**{**PRODUCTION, "REDIS_URL": url}).warnings() == ()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("REDIS_URL", "redis://127.0.0.1/0", "REDIS_URL has no password"),
        ("REDIS_URL", "redis://:a-password@cache/0", "REDIS_URL goes to another machine in plain text"),
        ("DATABASE_URL", "postgresql://u:p@db/x?sslmode=disable", "DATABASE_URL goes to another machine in plain text"),
        (
            "SWAP_ALLOWED_ORIGINS",
            "https://a.example,http://b.example",
            "SWAP_ALLOWED_ORIGINS names a site without https",
        ),
    ],
)
def test_production_warns_of_what_is_weak_but_may_be_meant(name: str, value: str, told: str) -> None:
    quiet = {**PRODUCTION, "REDIS_URL": "unix:///run/redis.sock"}
    (sentence,) = read(**{**quiet, name: value}).warnings()
    assert sentence.startswith(told)


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("RATE_TOLERANCE", "0.1", "0.11"),
        ("RATE_TOLERANCE", "0", "1"),
        ("RATE_TOLERANCE", "0.01", "500"),
        ("RATE_MAX_AGE", "3600", "3601"),
        ("UPSTREAM_MARKUP", "99.9", "100"),
    ],
)
def test_a_number_that_would_switch_a_check_off_is_refused_everywhere(name: str, taken: str, refused: str) -> None:
    referrer = {"UPSTREAM_REFERRER_ID": "aff_1"}
    assert read(**referrer, **{name: taken})
    (found,) = mistakes(**referrer, **{name: refused})
    assert found.startswith(f"{name} must be ")


def test_development_refuses_an_upstream_outside_unless_allowed() -> None:
    assert "SWAP_ALLOW_LIVE_UPSTREAM" in mistakes(UPSTREAM_URL="https://upstream.example")[0]
    assert "SWAP_ALLOW_LIVE_UPSTREAM" in mistakes(UPSTREAM_URL="https://up.example", SWAP_ALLOW_LIVE_UPSTREAM="0")[0]
    settings = read(UPSTREAM_URL="https://upstream.example/", SWAP_ALLOW_LIVE_UPSTREAM="1")
    assert settings.upstream_url == "https://upstream.example"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("http://localhost:8090", True),
        ("http://[::1]:8090", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://127.0.0.1@evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://0.0.0.0", False),
        ("http://10.0.0.1", False),
        ("http://[::ffff:10.0.0.1]", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_the_host_alone(url: str, here: bool) -> None:
    assert is_loopback(url) is here


@pytest.mark.parametrize(
    "url",
    [
        "upstream.example",
        "http://upstream.example",
        "ftp://127.0.0.1",
        "https://upstream.example/api/v2",
        "https://upstream.example?x=1",
        "https://upstream.example#x",
        "https://:pw@upstream.example",
        "https://user@upstream.example",
        "https://upstream.example:port",
        "https://upstream.example:99999",
        "https://[::1",
        "https://\u2100.example",
    ],
)
def test_an_upstream_that_is_no_bare_https_host_is_refused(url: str) -> None:
    (sentence,) = mistakes(UPSTREAM_URL=url, SWAP_ALLOW_LIVE_UPSTREAM="1")
    assert sentence.startswith("UPSTREAM_URL ")
    assert url not in sentence


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        ("sqlite:////tmp/swap.db", "sqlite:////tmp/swap.db"),
        ("postgresql://u:p@h:5432/d", "postgresql+psycopg://u:p@h:5432/d"),
        ("postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql://u:p#1/2@h/d", "postgresql+psycopg://u:p#1/2@h/d"),
        ("postgresql:///d?host=/run/pg", "postgresql+psycopg:///d?host=/run/pg"),
        ("sqlite:///relative.db", None),
        ("sqlite://", None),
        ("sqlite:////", None),
        ("postgresql://u:p@h:port/d", None),
        ("/tmp/swap.db", None),
    ],
)
def test_database_urls(given: str, read_as: str | None) -> None:
    if read_as is None:
        (sentence,) = mistakes(DATABASE_URL=given)
        assert sentence.startswith("DATABASE_URL ")
    else:
        assert read(DATABASE_URL=given).database_url == read_as


@pytest.mark.parametrize(
    "text", ["1e3", "1_0", "NaN", "Infinity", "１", " 1", "+1", "-1", "0x1", "1.", "9" * 13, "1" * 5000]
)
def test_numbers_are_in_plain_notation(text: str) -> None:
    assert mistakes(UPSTREAM_RPS=text) == ["UPSTREAM_RPS must be a decimal number"]
    assert mistakes(SWAP_MAX_CREATES=text) == ["SWAP_MAX_CREATES must be a whole number from 1 to 10000"]
    assert mistakes(SWAP_API_BIND=f"127.0.0.1:{text}") == ["SWAP_API_BIND must be HOST:PORT"]


def test_a_create_may_not_outlast_the_answer_it_is_part_of() -> None:
    assert read(UPSTREAM_CREATE_TIMEOUT="25").upstream_create_timeout == 25
    assert "at most 25" in mistakes(UPSTREAM_CREATE_TIMEOUT="26")[0]


def test_markup_without_referrer_is_refused() -> None:
    assert "UPSTREAM_REFERRER_ID" in mistakes(UPSTREAM_MARKUP="0.3")[0]
    assert read(UPSTREAM_MARKUP="0.3", UPSTREAM_REFERRER_ID="r").upstream_markup == Decimal("0.3")


def test_a_key_without_its_secret_is_refused() -> None:
    assert "go together" in mistakes(UPSTREAM_PUBLIC_KEY="pk")[0]
    assert "go together" in mistakes(UPSTREAM_SECRET_KEY="sk")[0]


def test_time_may_only_be_scaled_on_this_machine() -> None:
    assert read(SWAP_TIME_SCALE="60").time_scale == 60
    assert read(SWAP_TIME_SCALE="1", UPSTREAM_URL="https://u.example", SWAP_ALLOW_LIVE_UPSTREAM="1").time_scale == 1
    found = mistakes(SWAP_TIME_SCALE="60", UPSTREAM_URL="https://u.example", SWAP_ALLOW_LIVE_UPSTREAM="1")
    assert found == ["SWAP_TIME_SCALE other than 1 is for an upstream on this machine only"]


def test_names_we_do_not_know_are_kept_for_a_warning_and_nothing_else() -> None:
    settings = read(
        SWAP_TYPO="1", UPSTREAM_URLL="x", UPSTREAM_PUBLIC_KEY_FILE="/x", OTHER="1", SWAP_SECRET_KEYS_FILE=""
    )
    assert settings.unknown == ("SWAP_TYPO", "UPSTREAM_PUBLIC_KEY_FILE", "UPSTREAM_URLL")


def test_secret_keys_are_long_texts_separated_by_commas() -> None:
    assert read(SWAP_SECRET_KEYS=f" {'a' * 32} , {'ü' * 32},").secret_keys == ("a" * 32, "ü" * 32)
    for bad in ("a" * 31, f"{'a' * 32},{'b' * 31}", ",", "\udcff" * 32):
        assert mistakes(SWAP_SECRET_KEYS=bad)[0].startswith("SWAP_SECRET_KEYS ")


def test_old_keys_are_pairs() -> None:
    assert read(UPSTREAM_OLD_KEYS="a:b, c:d:e").upstream_old_keys == (("a", "b"), ("c", "d:e"))
    for bad in ("a", "a:", ":b", "a:b,", "ä:b"):
        assert mistakes(UPSTREAM_OLD_KEYS=bad)[0].startswith("UPSTREAM_OLD_KEYS ")


def test_every_field_but_the_derived_ones_has_a_name_in_the_environment() -> None:
    source = Path(__file__).parents[1] / "swap" / "settings" / "__init__.py"
    filled = set(re.findall(r'"[A-Z_]+": \("([a-z_]+)"', source.read_text(encoding="utf-8")))
    assert {f.name for f in fields(Settings)} - filled == {"var", "unknown"}


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "https://*.shop.example",
        "shop.example",
        "https://shop.example/",
        "https://Shop.example",
        "null",
        "ftp://shop.example",
        "https://user@shop.example",
        "https://",
        "https://shop.example?x",
        "https://a,b",
    ],
)
def test_an_origin_that_no_browser_would_send_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Settings.from_env({"SWAP_ALLOWED_ORIGINS": text})


def test_allowed_origins_are_a_list() -> None:
    text = "https://shop.example, http://localhost:3000"
    assert Settings.from_env({"SWAP_ALLOWED_ORIGINS": text}).allowed_origins == (
        "https://shop.example",
        "http://localhost:3000",
    )
