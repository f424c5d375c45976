"""What stands between the service and PostgreSQL, so that a database can be stopped without stopping that of others.

A process of its own: while it is stopped (SIGSTOP), connections are neither answered nor closed, and the kernel goes on
taking new ones, as for a server whose disk hangs. Bytes are passed as they come; nothing is understood.

    python -m drill.database_proxy PORT HOST:PORT   (or the folder of the server's socket, and its port)
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK = 65536


def opener(target: str) -> Callable[[], Awaitable[Streams]]:
    """How the server at `host:port` or `/folder:port` is reached."""
    host, _, port = target.rpartition(":")
    if host.startswith("/"):
        return partial(asyncio.open_unix_connection, f"{host}/.s.PGSQL.{port}")
    return partial(asyncio.open_connection, host.strip("[]"), int(port))


async def serve(port: int, open_target: Callable[[], Awaitable[Streams]]) -> None:
    """On loopback, until SIGTERM."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whatever goes wrong on one side is the end of the connection on the other, and of nothing else.
        with contextlib.closing(writer), contextlib.suppress(OSError):
            server_reader, server_writer = await open_target()
            with contextlib.closing(server_writer):
                both = [asyncio.create_task(_pass(*one)) for one in ((reader, server_writer), (server_reader, writer))]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)

    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server = await asyncio.start_server(connected, "127.0.0.1", port)
    await stopping.wait()
    server.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), opener(sys.argv[2])))
