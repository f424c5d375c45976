"""`swap ...`: every part of the service, and the operator's tools. Logs go to stderr; with --json exactly one JSON object
goes to stdout. Exit codes: 0 done, 1 failed, 2 called wrongly."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import click
import orjson

from swap.errors import ConfigurationError, InvalidRequest, SwapError
from swap.infra import logs
from swap.settings import SANDBOX_PUBLIC_KEY, SANDBOX_SECRET_KEY, SANDBOX_URL, state_folder
from swap.tools.access import actor, addresses, audit, clients, keys
from swap.tools.command_line import fail, open_service, read_settings, show
from swap.tools.orders import orders

# Commands import what they run when they run it: a worker need not load the sandbox, nor `swap --help` the database.


@click.group()
@click.version_option(package_name="swap-service", prog_name="swap")
def main() -> None:
    """The swap service: orders between fiat and crypto, watched until the money has arrived."""


# --- parts -----------------------------------------------------------------------------------------------------------


@main.command()
def up() -> None:
    """Run all parts, with an embedded Redis and the sandbox upstream unless told otherwise. Ctrl-C stops them."""
    from swap.processes import supervise
    from swap.store.database import Database

    # A copy: the children read their secrets from the environment themselves.
    settings = read_settings(dict(os.environ))
    supervisor = supervise.Supervisor(drain_seconds=settings.drain_seconds)
    _stop_on_signals()
    environ = dict(os.environ)
    try:
        if settings.redis_url is None:
            environ["REDIS_URL"] = supervise.start_redis(supervisor, settings.var)
        _free(settings.api_bind, "SWAP_API_BIND moves the API")
        _free(settings.stream_bind, "SWAP_STREAM_BIND moves the stream")
        # Empty counts as not given, here as in Settings.
        if not environ.get("UPSTREAM_URL"):
            _free(SANDBOX_URL.partition("://")[2], "set UPSTREAM_URL to use an upstream, or a sandbox, of your own")
            port = SANDBOX_URL.rpartition(":")[2]
            keys = ["--public-key", SANDBOX_PUBLIC_KEY, "--secret-key", SANDBOX_SECRET_KEY]
            supervisor.start_swap("sandbox", ["sandbox", "--port", port, *keys], environ)
            supervisor.wait_for("sandbox", lambda: supervise.answers(SANDBOX_URL))
        Database(settings.database_url).migrate()
        supervisor.start_swap("scheduler", ["scheduler"], environ)
        supervisor.start_swap("worker-watch", ["worker", "--queue", "watch"], environ)
        supervisor.start_swap("worker-push", ["worker", "--queue", "push"], environ)
        supervisor.start_swap("api", ["api"], environ)
        supervisor.start_swap("stream", ["stream"], environ)
        supervisor.wait_for("api", lambda: supervise.answers(f"http://{settings.api_bind}"))
        supervisor.wait_for("stream", lambda: supervise.answers(f"http://{settings.stream_bind}"))
        click.echo(
            f"The API is at http://{settings.api_bind} (docs: /openapi.json), the stream at "
            f"ws://{settings.stream_bind}/v1/stream. Ctrl-C stops everything.",
            err=True,
        )
        click.echo(f"Make a key with: {sys.argv[0]} keys create --name NAME", err=True)
        supervisor.watch()
    except KeyboardInterrupt:
        click.echo("Stopping.", err=True)
    except supervise.PartFailed as error:
        fail(str(error))
    finally:
        supervisor.stop()
        if settings.redis_url is None:
            supervise.forget_redis(settings.var)


@main.command()
def api() -> None:
    """Serve the JSON API on SWAP_API_BIND."""
    from swap.processes.api import serve
    from swap.wiring import complete

    # Checked here, so that a mistake is told once and clearly; the serving process reads and takes the secrets itself.
    serve(complete(read_settings(dict(os.environ))))


@main.command()
@click.option("--queue", "queues", multiple=True, type=click.Choice(["watch", "push"]), help="Default: both.")
def worker(queues: tuple[str, ...]) -> None:
    """Look at orders (queue watch), publish and deliver events (queue push)."""
    from workers.run import run as work

    work(_start("worker"), queues or ("watch", "push"))


@main.command()
def scheduler() -> None:
    """Find what is due and have it done. Any number may run."""
    from workers.schedule import Scheduler

    Scheduler(_start("scheduler")).run()


@main.command()
def stream() -> None:
    """Serve the WebSocket stream on SWAP_STREAM_BIND. Any number may run."""
    from swap.stream.server import run as serve

    serve(_start("stream"))


@main.command()
@click.option("--port", type=int, required=True)
@click.option("--public-key", required=True)
@click.option("--secret-key", required=True)
@click.option("--speed", type=float, default=1.0, help="How much faster than life orders move.")
@click.option("--profile", type=click.Choice(["clean", "chaos"]), default="clean")
@click.option("--seed", type=int, default=0, help="The same seed, the same faults.")
@click.option("--large", is_flag=True, help="A catalog of 200 instruments and 20,000 pairs.")
def sandbox(
    port: int,
    public_key: str,
    secret_key: str,
    speed: float,
    profile: Literal["clean", "chaos"],
    seed: int,
    large: bool,
) -> None:
    """A server that speaks the upstream's v2 protocol, for development and tests. Loopback only."""
    from swap.sandbox.chaos import Chaos
    from swap.sandbox.server import serve
    from swap.sandbox.world import World

    logs.configure("INFO", [secret_key], part="sandbox")
    chaos = Chaos(profile, seed=seed)
    serve("127.0.0.1", port, World(public_key, secret_key, speed=speed, seed=seed, large=large, chaos=chaos))


@main.command()
def demo() -> None:
    """One BTC to XRP swap in front of your eyes, on parts started for it alone."""
    from swap.tools.demo import run as run_demo

    sys.exit(run_demo(state_folder() / "demo"))


@main.command()
@click.option("--key", envvar="SWAP_LISTEN_KEY", required=True, help="A key of the client; or SWAP_LISTEN_KEY.")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the key's secret; or the secret itself in SWAP_LISTEN_SECRET.",
)
@click.option("--url", default="http://127.0.0.1:8080", help="The API.")
@click.option("--forward-to", help="Post each event here, signed as a webhook.")
@click.option("--after", help="Begin behind this cursor; default: with what happens from now on.")
@click.option("--json", "as_json", is_flag=True, help="One event per line, as the feed has it.")
def listen(
    key: str, secret_file: Path | None, url: str, forward_to: str | None, after: str | None, as_json: bool
) -> None:
    """Watch a client's events as they happen, and forward them to a webhook receiver under construction."""
    from swap.sdk import SwapApiError, SwapClient
    from swap.tools.listen import Forward, follow

    secret = (
        os.environ.get("SWAP_LISTEN_SECRET", "") if secret_file is None else secret_file.read_text(encoding="utf-8")
    )
    if not secret.strip():
        raise click.UsageError("Give the key's secret by --secret-file, or in SWAP_LISTEN_SECRET.")
    _stop_on_signals()
    forward = None if forward_to is None else Forward(forward_to)
    if forward is not None:
        click.echo(f"Forwarding to {forward.url}, signed with the secret {forward.secret}", err=True)

    def trouble(what: str) -> None:
        click.echo(f"The service cannot be asked ({what}); trying again.", err=True)

    try:
        for event in follow(SwapClient(url, key, secret.strip()), after, on_trouble=trouble):
            if as_json:
                click.echo(orjson.dumps(event))
            else:
                click.echo(f"{event['created_at']}  {event['order_id']} #{event['sequence']}  {event['type']}")
            if forward is not None:
                click.echo(f"  -> {forward.send(event)} {event['type']} {event['id']}", err=True)
    except SwapApiError as error:
        fail(f"{error.code}: {error.message}")
    except KeyboardInterrupt:
        pass


# --- tools -----------------------------------------------------------------------------------------------------------


@main.command()
def migrate() -> None:
    """Bring the database to the newest schema. Safe to run twice, and twice at once."""
    from swap.store.database import Database

    Database(read_settings().database_url).migrate()


@main.command()
@click.option("--json", "as_json", is_flag=True)
def doctor(as_json: bool) -> None:
    """Check database, Redis, catalog, clock and the upstream key pair, which must belong to this service alone.

    Exit 1 when something is bad."""
    from swap.wiring import doctor as doctor_of

    findings = list(doctor_of(open_service()).examine())
    if as_json:
        show({"findings": [finding._asdict() for finding in findings]}, as_json)
    else:
        for finding in findings:
            click.echo(f"{finding.state:4}  {finding.part:12}  {finding.said}")
    sys.exit(any(finding.state == "bad" for finding in findings))


@main.command()
@click.option("--last", is_flag=True, help="Show the last ten stored reports instead, newest first.")
@click.option("--json", "as_json", is_flag=True)
def reconcile(last: bool, as_json: bool) -> None:
    """Hold the upstream's list against our orders now. Exit 1 unless every key's report is clean."""
    use_case = open_service().reconcile
    reports = use_case.last() if last else use_case.run()
    show({"reports": reports}, as_json)
    if not last and any(report["outcome"] != "clean" for report in reports):
        sys.exit(1)


@main.group()
def webhooks() -> None:
    """Webhook endpoints of clients."""


@webhooks.command("add")
@click.option("--key", required=True, help="Any key of the client that is to receive them.")
@click.option("--url", required=True)
@click.option("--types", default="", help="Comma list of event types; default: all.")
@click.option("--trusted", is_flag=True, help="Send events at once: you know whose URL this is.")
@click.option("--by", help="Who wants it; default: who is logged in.")
@click.option("--json", "as_json", is_flag=True)
def add_webhook(key: str, url: str, types: str, trusted: bool, by: str | None, as_json: bool) -> None:
    """Register an endpoint. Its secret is shown now and never again. Events are sent once the endpoint has answered
    endpoint.verify (docs/webhooks.md), or at once with --trusted."""
    chosen = [name.strip() for name in types.split(",") if name.strip()]
    show(open_service().endpoints.add(key, url, chosen, trusted=trusted, by=actor(by)), as_json)


@main.group()
def feed() -> None:
    """The feed of events."""


@feed.command("new-epoch")
@click.option("--json", "as_json", is_flag=True)
def new_epoch(as_json: bool) -> None:
    """After restoring a backup, before anything runs: make every cursor given out so far answer CURSOR_RESET."""
    show({"epoch": open_service().feed.new_epoch()}, as_json)


for command in (orders, keys, clients, addresses, audit):
    main.add_command(command)


# --- shared ----------------------------------------------------------------------------------------------------------


def _start(part: str) -> Any:
    from swap.wiring import start

    try:
        return start(part)
    except ConfigurationError as error:
        fail("\n".join(error.mistakes))


def _free(bind: str, advice: str) -> None:
    from swap.processes import supervise

    if supervise.answers(f"http://{bind}"):
        raise supervise.PartFailed(f"Something listens at {bind} already; {advice}.")


def _stop_on_signals() -> None:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt. SIGINT too: a shell starts its background jobs with it ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def run() -> None:
    try:
        main()
    except InvalidRequest as error:
        found = [f"{name}: {problem.message}" for name, problems in error.fields.items() for problem in problems]
        fail("\n".join([f"{error.code}: {error.message}", *found]))
    except SwapError as error:
        fail(f"{error.code}: {error.message}")
    except Exception as error:
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, SQLAlchemyError):
            raise
        kind = type(error).__name__
        fail(f"The database cannot be used ({kind}); is DATABASE_URL right, and was `swap migrate` run?")


if __name__ == "__main__":
    run()
