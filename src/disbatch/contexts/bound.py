"""A command of the user's that ends with this process, also if that is killed.

The command gets its standard input empty. The pipe that it was started with is the lifeline: a shell in the
same process group reads it. When it closes and the command still runs, its starter was killed, and the group
is ended: SIGTERM, a grace, SIGKILL. When the command has ended by itself, what it left running is left alone.
The group's number cannot be given away meanwhile, as that shell is a member.
"""

from __future__ import annotations

GRACE = 3
"""Seconds between SIGTERM and SIGKILL."""
_SCRIPT = f"""\
exec 3<&0 </dev/null
(
    trap '' TERM
    read -r word <&3
    kill -0 $$ || exit
    kill -s TERM 0
    sleep {GRACE}
    kill -s KILL 0
) >/dev/null 2>&1 &
exec "$@" 3<&-
"""


def bound(argv: list[str]) -> list[str]:
    """`argv`, to be started as the leader of a process group, with a pipe to it that stays open."""
    return ["/bin/sh", "-c", _SCRIPT, argv[0], *argv]
