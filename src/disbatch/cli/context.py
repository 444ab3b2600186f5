"""From options and nodes to a context: for a run of our own, and for one that is attached to another."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from disbatch.cli.config import read_config
from disbatch.contexts.context import Context
from disbatch.contexts.discovery import Choice
from disbatch.contexts.slurm import RETIRE_COMMAND, Allocation
from disbatch.contexts.srun import OPTIONS_FILE, SrunOptions, read_options_file
from disbatch.contexts.ssh import SshOptions


def context_of(options: argparse.Namespace, choice: Choice) -> Context:
    """What `options.add_where` and `options.add_reach` declare, with these nodes."""
    retire, retire_default = _retire_command(options, choice.allocation)
    return Context(
        nodes=choice.nodes,
        label=options.label,
        task_limit=options.task_limit or None,
        retire_command=retire,
        retire_default=retire_default,
        allocation=choice.allocation,
        srun=_srun_options(choice.allocation),
        ssh=_ssh_options(options),
        gpu=options.gpu,
        share=options.env_resource,
        bind=_bind(options.bind, choice.allocation),
        time_limit_margin=options.time_limit_margin,
        tunnel=options.tunnel,
    )


def _ssh_options(options: argparse.Namespace) -> SshOptions:
    config = read_config(os.environ)
    return SshOptions(python=options.ssh_python or config.python, package=config.package_path)


def _srun_options(allocation: Allocation | None) -> SrunOptions | None:
    if allocation is None:
        return None
    path = os.environ.get(OPTIONS_FILE)
    variables = read_options_file(Path(path)) if path else {}
    config = read_config(os.environ)
    return SrunOptions(allocation.version, variables, config.python, config.package_path)


def _retire_command(options: argparse.Namespace, allocation: Allocation | None) -> tuple[str | None, bool]:
    """What gives nodes back, and whether it is Slurm's own way."""
    if options.no_retire or options.retire_command == "":
        return None, False
    # Components of a heterogeneous job are jobs of their own, and none of them may lose all its nodes.
    if options.retire_command is not None or allocation is None or allocation.heterogeneous:
        return options.retire_command, False
    return RETIRE_COMMAND, True


def _bind(option: str | None, allocation: Allocation | None) -> bool | None:
    if option is None:
        return False if allocation is None else None
    return option == "cores"
