"""The notices that the options ask for: mail, and the user's own commands."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from disbatch.cli.run_options import MailOptions, NoticeOptions
from disbatch.driver.settings import Listener
from disbatch.model.errors import UsageError
from disbatch.model.view import Summary
from disbatch.rundir.paths import RunFiles
from disbatch.rundir.runscript import status_file
from disbatch.watch.summary import render

if TYPE_CHECKING:
    from disbatch.watch.hooks import Hooks
    from disbatch.watch.mail import Mailer, MailServer

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_RECIPIENTS = 50
LONGEST_ADDRESS = 254


class Notices:
    """The notices of a run; there may be none. `say` gets a line for the user."""

    def __init__(
        self, say: Callable[[str], None], mailer: Mailer | None = None, hooks: Hooks | None = None
    ) -> None:
        self._say = say
        self._mailer = mailer
        self._hooks = hooks

    @property
    def listeners(self) -> list[Listener]:
        """The notices that need to know of each task."""
        return [each for each in (self._mailer, self._hooks) if each is not None]

    async def see_off(self, summary: Summary, exit_code: int) -> None:
        """The run is over: send the last mail and run the commands for its end, in bounded time, or until the
        user interrupts."""
        if not self.listeners:
            return
        loop = asyncio.get_running_loop()
        closing = loop.create_task(self._close(summary, exit_code))
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, closing.cancel)
        await asyncio.wait([closing])
        if closing.cancelled():
            self._say("not waiting for the last mail and commands any more")
        elif (error := closing.exception()) is not None:
            log.error("at the end", exc_info=error)
            self._say(f"mail and commands of the end: {error!r}")

    async def _close(self, summary: Summary, exit_code: int) -> None:
        last = []
        if self._mailer is not None:
            view = summary.view
            failed = f", {view.failed:,} failed" if view.failed else ""
            words = f"{summary.conclusion} ({view.done:,} done{failed})"
            last.append(self._mailer.close(words, f"{render(summary)}\n"))
        if self._hooks is not None:
            last.append(self._hooks.close(summary, exit_code))
        await asyncio.gather(*last)


def recipients(text: str) -> list[str]:
    """The addresses of --mailTo A,B. UsageError."""
    addresses = [address.strip() for address in text.split(",")]
    for address in addresses:
        plain = address.isascii() and address.isprintable()
        if not plain or not 0 < len(address) <= LONGEST_ADDRESS or set(address) & set(' <>()[];:"\\'):
            raise UsageError(f"--mailTo {text[:100]!r}: write ADDRESS or ADDRESS,ADDRESS")
    if len(addresses) > MOST_RECIPIENTS:
        raise UsageError(f"--mailTo: {len(addresses)} addresses, and {MOST_RECIPIENTS} are the most")
    return addresses


def mail_server(mail: MailOptions | None, environment: Mapping[str, str]) -> MailServer | None:
    """The mail server; None if no mail is asked for. UsageError if its address is wrong."""
    if mail is None:
        return None
    from disbatch.watch.mail import VARIABLE, parse_mail_server

    recipients(mail.to)
    post = parse_mail_server(environment.get(VARIABLE, ""))
    if post.ca and not Path(post.ca).is_file():
        raise UsageError(f"{VARIABLE}: ssl_ca_certs: there is no file {post.ca}")
    return post


def choose_notices(
    options: NoticeOptions,
    post: MailServer | None,
    *,
    files: RunFiles,
    environment: Mapping[bytes, bytes],
    jobid: str,
    name: str,
    again: bool,
    say: Callable[[str], None],
) -> Notices:
    """The notices that the user asked for. `environment`: that of the tasks, without secrets; `name`: of the
    task file."""

    def tell(text: str) -> None:
        log.warning("%s", text)
        say(text)

    mailer, hooks = None, None
    if post is not None and options.mail is not None:
        from disbatch.watch.mail import Mailer

        to, every = recipients(options.mail.to), options.mail.every
        mailer = Mailer(post, to, every, name=files.prefix.name, notify_user=tell)
    if options.on_finish or options.on_failure:
        from disbatch.watch.hooks import Commands, Hooks

        known = {os.fsdecode(variable): os.fsdecode(value) for variable, value in environment.items()}
        known |= {
            "DISBATCH_JOBID": jobid,
            "DISBATCH_NAMETASKS": name,
            "DISBATCH_PREFIX": str(files.prefix),
            "DISBATCH_LOG_FILE": str(files.log.absolute()),
        }
        commands = Commands(options.on_finish, options.on_failure)
        hooks = Hooks(commands, known, tell, again, status_file=partial(status_file, str(files.prefix)))
    return Notices(tell, mailer, hooks)
