"""The process of the web page. A line of its standard input holds its settings."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn
import zmq

from disbatch.client.run_client import RunClient, line_opener
from disbatch.model.errors import DisbatchError
from disbatch.model.text import shell_word, shown_path
from disbatch.rundir.lock import hold
from disbatch.watch.web.launch import Settings, address_of, parse_settings
from disbatch.watch.web.security import Connection, Guard, Strangers, most_strangers
from disbatch.watch.web.server import Page
from disbatch.watch.web.state import Picture, Watcher
from disbatch.wire.connect import ConnectFile
from disbatch.wire.descriptors import raise_limit
from disbatch.wire.ownfile import open_own

LAST_WORDS = 2.0
"""Seconds for browsers to receive the end of the run."""


def main() -> int:
    """Serve the page until the run is over."""
    raise_limit()
    try:
        asyncio.run(_serve(parse_settings(sys.stdin.buffer.readline())))
    except (DisbatchError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the driver, which started us
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    prefix = os.fsdecode(settings.prefix)
    file = open_own(settings.file, os.O_RDWR)
    hold(file)  # as long as this process lives: a new driver of the run starts no second page
    connect = ConnectFile.read(Path(f"{prefix}_connect.json"))
    picture = Picture()
    with zmq.Context() as context, socket.socket(fileno=settings.descriptor) as listening:
        loop = asyncio.get_running_loop()
        client = RunClient(
            *(line_opener(context), connect, prefix),
            notify_user=picture.fall_silent,
            advice=f"if it is dead, `disbatch --takeover {shell_word(prefix)}` goes on with the run",
            patience=settings.patience,
            by="the web page",
        )
        try:
            watcher = Watcher(client, picture)
            page = Page(picture, prefix, watcher.order)
            name = await loop.run_in_executor(None, socket.getfqdn)
            server = _server(settings, page, file, name)
            serving = loop.create_task(server.serve([listening]))
            watching = loop.create_task(watcher.watch())
            await asyncio.wait([serving, watching], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([loop.create_task(page.all_told.wait()), serving], timeout=LAST_WORDS,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            server.should_exit = True
            await serving
            watching.cancel()
        finally:
            client.close()
    Path(os.fsdecode(settings.file)).unlink(missing_ok=True)


def _server(settings: Settings, page: Page, file: int, name: str) -> uvicorn.Server:
    def renew(token: str) -> None:
        os.pwrite(file, f"{address_of(settings.host, settings.port, token)}\n".encode(), 0)

    shown = shown_path(os.fsdecode(settings.file))
    guard = Guard(
        page.app,
        hosts=[*settings.hosts, name],
        token=settings.token,
        renew=renew,
        port=settings.port,
        file=shown,
    )
    config = uvicorn.Config(
        *(guard,),
        http=cast(type[asyncio.Protocol], partial(Connection, Strangers(most_strangers()))),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=most_strangers(),
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


if __name__ == "__main__":
    sys.exit(main())
