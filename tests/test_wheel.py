"""The wheel: built, installed outside the checkout, and run by a user who has nothing else of the service."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
import requests

from swap.processes.supervise import free_port
from swap.settings import SANDBOX_PUBLIC_KEY, SANDBOX_SECRET_KEY

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What uv says when it gets no answer at all; a package that the registry does not have reads otherwise.
_NO_REGISTRY = ("Failed to fetch", "error sending request", "network was disabled", "network is disabled")


def uv(*arguments: str) -> str:
    """Run the uv that `make setup` brought along. Skips the test where the registry cannot be reached."""
    program = shutil.which("uv", path=f"{ROOT / '.boot' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert program, "there is no uv; run `make setup`"
    environ = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    command = [program, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**environ, "UV_PYTHON_DOWNLOADS": "never"}, capture_output=True, text=True, timeout=300
    )
    if done.returncode != 0 and any(words in done.stderr for words in _NO_REGISTRY):
        pytest.skip(f"the package registry cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, which is built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--python", sys.executable, "--out-dir", str(folder))
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment that holds the wheel and what it needs, in the versions of the lock file."""
    folder = tmp_path_factory.mktemp("venv")
    locked = folder / "locked.txt"
    locked.write_text(uv("export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes"))
    uv("venv", "--quiet", "--python", sys.executable, str(folder / "env"))
    python = str(folder / "env" / "bin" / "python")
    uv("pip", "install", "--quiet", "--python", python, "--constraint", str(locked), str(wheel))
    return folder / "env"


def test_the_wheel_holds_the_service_with_its_migrations_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {str(path.relative_to(ROOT)) for folder in ("swap", "workers") for path in (ROOT / folder).rglob("*.py")}
    migrations = {str(path.relative_to(ROOT)) for path in (ROOT / "migrations").rglob("*.*") if path.suffix != ".pyc"}
    assert {name for name in names if ".dist-info/" not in name} == {
        "swap/py.typed",
        *modules,
        *(f"swap/{name}" for name in migrations),
    }


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
        assert f"{Path(name).parent}/licenses/LICENSE" in archive.namelist()
    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below the folder, with its size and the time of its last change."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def answers_200(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


def test_an_installed_service_runs_and_writes_nothing_beside_itself(environment: Path, tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    api, port = f"127.0.0.1:{free_port()}", free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode"),
        "SWAP_API_BIND": api,
        "SWAP_STREAM_BIND": f"127.0.0.1:{free_port()}",
        "UPSTREAM_URL": f"http://127.0.0.1:{port}",
        "UPSTREAM_PUBLIC_KEY": SANDBOX_PUBLIC_KEY,
        "UPSTREAM_SECRET_KEY": SANDBOX_SECRET_KEY,
    }
    swap = str(environment / "bin" / "swap")
    (installed,) = environment.glob("lib/python*/site-packages")
    before = files(installed)

    def run(*arguments: str) -> str:
        done = subprocess.run([swap, *arguments], cwd=here, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version") == f"swap, version {PROJECT['version']}\n"
    run("migrate")
    state = home / ".local" / "state" / "swap"
    assert (state / "swap.db").is_file()

    keys = ["--public-key", SANDBOX_PUBLIC_KEY, "--secret-key", SANDBOX_SECRET_KEY]
    log = tmp_path / "log"
    running = []
    try:
        for arguments in (["sandbox", "--port", str(port), *keys], ["up"]):
            with log.open("ab") as output:
                running.append(
                    subprocess.Popen(
                        [swap, *arguments], cwd=here, env=environ, stdout=output, stderr=output, start_new_session=True
                    )
                )
        until = time.monotonic() + 60
        while not answers_200(f"http://{api}/readyz"):
            assert time.monotonic() < until and running[-1].poll() is None, log.read_text()
            time.sleep(0.1)
        running[-1].terminate()
        assert running[-1].wait(30) == 0, log.read_text()
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)

    assert files(installed) == before
    assert (state / "secret_keys").is_file()
    assert list(here.iterdir()) == []
    assert [path.name for path in home.iterdir()] == [".local"]
