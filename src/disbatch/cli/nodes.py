"""The nodes that the options of a context, the environment and Slurm tell of."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from disbatch.contexts.discovery import Choice, choose_nodes
from disbatch.contexts.machine import this_machine

if TYPE_CHECKING:
    from disbatch.contexts.hetjob import JobFacts

MOST_BYTES = 1 << 20
"""Of a file in which a scheduler names a job's hosts."""


def find_nodes(options: argparse.Namespace, warn: Callable[[str], None]) -> Choice:
    """The nodes to use; `warn` gets a line for each that is left out. UsageError if there are none."""
    choice = choose_nodes(
        options.ssh_node,
        os.environ,
        this_machine(),
        cores_per_task=options.cores_per_task,
        tasks_per_node=options.tasks_per_node,
        fill=options.fill,
        ask=_ask_slurm,
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


def no_nodes() -> Choice:
    """A run that starts with none."""
    return Choice([], [])


def _ask_slurm(job: str) -> JobFacts:
    from disbatch.contexts.scontrol import ask

    return ask(job, os.environ)
