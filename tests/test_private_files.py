"""What the service writes is for its own user alone, whatever the umask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from swap.infra import private_files
from swap.processes.supervise import Supervisor
from swap.store.database import Database
from swap.wiring import _own_secret_key


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o7777)


@pytest.mark.db
@pytest.mark.usefixtures("umask")
def test_a_new_database_is_for_its_user_alone_with_all_its_files(tmp_path: Path) -> None:
    path = tmp_path / "var" / "swap.db"
    with closing(Database(f"sqlite:///{path}")) as database:
        database.migrate()
        assert {each.name: mode(each) for each in path.parent.iterdir()} == {
            "swap.db": "0o600",
            "swap.db-wal": "0o600",
            "swap.db-shm": "0o600",
        }
    assert mode(path.parent) == "0o700"


@pytest.mark.db
def test_a_database_that_others_could_read_is_closed_and_a_folder_that_was_there_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "swap.db"
    path.touch()
    path.chmod(0o644)
    Database(f"sqlite:///{path}").close()
    assert (mode(path), mode(tmp_path)) == ("0o600", "0o755")


@pytest.mark.usefixtures("umask")
def test_what_lies_in_var_is_for_its_user_alone(tmp_path: Path) -> None:
    var = tmp_path / "var"
    private_files.folder(var)
    assert mode(var) == "0o700"
    var.chmod(0o755)
    private_files.folder(var)
    assert mode(var) == "0o700"
    private_files.file(var / "redis.url")
    Supervisor(logs=var / "logs")
    assert (mode(var / "redis.url"), mode(var / "logs")) == ("0o600", "0o700")


def test_the_secret_key_of_an_installation_closes_its_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert len(_own_secret_key(tmp_path)) > 32
    assert (mode(tmp_path), mode(tmp_path / "secret_keys")) == ("0o700", "0o600")


def test_an_error_of_the_database_tells_no_parameters(database: Database) -> None:
    with pytest.raises(DBAPIError) as failed, database.write() as session:
        session.execute(text("SELECT nothing FROM nowhere WHERE a = :memo"), {"memo": "the customer's memo"})
    assert "nowhere" in str(failed.value)
    assert "the customer's memo" not in str(failed.value) + repr(failed.value)
