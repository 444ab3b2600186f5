"""Nodes and context of a command, from its options, the environment, and the user's configuration."""

from __future__ import annotations

import os
from collections.abc import Callable

from disbatch.cli.config import read_config
from disbatch.cli.run_options import ContextOptions
from disbatch.contexts.context import Choice, Installation
from disbatch.contexts.discovery import choose_nodes
from disbatch.contexts.hosts import Hosts
from disbatch.contexts.machine import this_machine
from disbatch.contexts.nodes import SlotRules
from disbatch.contexts.pool import Pool
from disbatch.contexts.ssh import SshOptions

MOST_BYTES = 1 << 20
"""Of a file in which a scheduler names a job's hosts."""


def find_nodes(options: ContextOptions, warn: Callable[[str], None]) -> Choice:
    """The nodes to use; `warn` gets a line for each that is left out. UsageError if there are none."""
    choice = choose_nodes(
        options.ssh_node,
        os.environ,
        this_machine(),
        SlotRules(options.cores_per_task, options.tasks_per_node, options.fill),
        read=_text_of,
    )
    for warning in choice.warnings:
        warn(warning)
    return choice


def _text_of(path: str) -> str:
    """What is in a small file of the scheduler's; "" if it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs time here
            return file.read(MOST_BYTES).decode(errors="replace")
    except (OSError, ValueError):
        return ""


def pool_of(options: ContextOptions, choice: Choice) -> Pool:
    """The pool that the options ask for, with these nodes."""
    config = read_config(os.environ)
    ssh = SshOptions(python=options.ssh_python or config.python, package=config.package_path)
    installation = Installation(config.python, config.package_path, ssh)
    context = (choice.job or Hosts()).prepared(installation, os.environ)
    asked = options.retire_command
    return Pool(
        nodes=choice.nodes,
        context=context,
        label=options.label,
        task_limit=options.task_limit or None,
        retire_command=None if options.no_retire else asked or None,
        release=context.can_release and asked is None and not options.no_retire,
        ssh=ssh,
        gpu=options.gpu,
        share=options.env_resource,
        bind=_bind(options.bind, choice),
        time_limit_margin=options.time_limit_margin,
        tunnel=options.tunnel,
    )


def _bind(option: str | None, choice: Choice) -> bool | None:
    """A scheduler says how many cores are the job's."""
    if option is None:
        return False if choice.job is None else None
    return option == "cores"
