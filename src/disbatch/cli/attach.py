"""`dbutil attach`, or PREFIX_dbUtil.sh with options only: add nodes to a run."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from disbatch.cli.options import context_options
from disbatch.cli.verb_options import AddVerb, run_option
from disbatch.client.command_line import add_reach, add_where
from disbatch.model.errors import DisbatchError

if TYPE_CHECKING:
    from disbatch.attach.agent import Attachment
    from disbatch.cli.run_options import ContextOptions

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DESCRIPTION = (
    "Add nodes to a run: other hosts, or those of the job that this command is in. It stays until these "
    "nodes have left the run; ^C removes them from it, and their tasks run again elsewhere."
)


def add_attach(add: AddVerb) -> None:
    """Declare the verb."""
    parser = add("attach", parents=[run_option()], help="add nodes to the run", description=DESCRIPTION)
    add_where(parser.add_argument_group("which nodes"), label=("-l", "--label"))
    add_reach(parser.add_argument_group("how they are reached"))
    parser.set_defaults(perform=lambda given, say: attach(given.run, context_options(given), say))


def attach(run_prefix: str | None, options: ContextOptions, say: Callable[[str], None]) -> int:
    """Add nodes to the run, and stay until they have left; the exit code. `say` gets lines for the user."""
    from msgspec import structs

    from disbatch.attach.agent import Attachment
    from disbatch.cli.context import find_nodes, pool_of
    from disbatch.client.find import find_run
    from disbatch.contexts.discovery import named_hosts, scheduler_of
    from disbatch.contexts.machine import this_machine
    from disbatch.contexts.nodes import affordable
    from disbatch.contexts.spawn import limit_children
    from disbatch.rundir.output_manifest import kept_output
    from disbatch.wire.descriptors import raise_limit

    logging.getLogger().addHandler(logging.NullHandler())  # `say` tells the user everything
    run = find_run(run_prefix)
    hosts, _ = named_hosts(options.ssh_node, os.environ)
    # In a job the scheduler says how many cores tasks take.
    if options.cores_per_task is None and (hosts or scheduler_of(os.environ) is None):
        options = structs.replace(options, cores_per_task=run.connect.cores_per_task)
    pool = pool_of(options, find_nodes(options, say))
    limit_children(raise_limit())
    nodes, words = affordable(pool.nodes, tunnel=pool.tunnel, connected=False)
    if words:
        say(words)
    pool, kept = replace(pool, nodes=nodes), kept_output(run.prefix)
    attachment = Attachment(
        pool,
        run.connect,
        run.prefix,
        None if kept is None else kept.output,
        hostname=this_machine().hostname,
        say=say,
        enter=_enter,
    )
    try:
        return asyncio.run(_carry_out(attachment))
    except DisbatchError as error:
        raise type(error)(f"{run.prefix}: {error}") from error


def _enter(environment: Mapping[bytes, bytes]) -> None:
    """Use this environment, which a command that starts a step passes on to it."""
    os.environb.clear()
    os.environb.update(environment)


async def _carry_out(attachment: Attachment) -> int:
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, attachment.interrupt, number)
    return await attachment.run()
