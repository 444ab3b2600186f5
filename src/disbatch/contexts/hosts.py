"""The context without a scheduler: this machine, and hosts behind ssh."""

from __future__ import annotations

from collections.abc import Mapping

from disbatch.contexts.context import Context, Installation, Launch, Lifeline
from disbatch.contexts.launch_errors import lines, local_words, ssh_words
from disbatch.contexts.local import engine_argv
from disbatch.contexts.nodes import Node
from disbatch.contexts.ssh import SshOptions, launch_argv


class Hosts(Context):
    """`ssh`: how hosts behind ssh are reached."""

    def __init__(self, ssh: SshOptions | None = None) -> None:
        self._ssh = ssh or SshOptions()

    def prepared(self, installation: Installation, environ: Mapping[str, str]) -> Hosts:
        """The same, with these options of ssh."""
        return Hosts(installation.ssh)

    def name_of(self, node: Node, hostname: str) -> str:
        """The name that the user gave; for this machine its own name."""
        return hostname if node.local else node.name

    def launch(self, node: Node) -> Launch:
        """A child of this process, or ssh."""
        if node.local:
            return Launch(engine_argv(), answers=False)
        argv = launch_argv(node.name, self._ssh)
        return Launch(argv, merged=False, lifeline=Lifeline.CONNECTION)

    def ended(self, node: Node, return_code: int, out: bytes, err: bytes) -> str:
        """From the output of the engine, its interpreter or ssh."""
        if node.local:
            return local_words(return_code, out, err)
        return ssh_words(node.name, self._ssh.python, return_code, out, err)

    def waits_for(self, err: bytes) -> str:
        """The last line of ssh."""
        return next(reversed(lines(err)), "")
