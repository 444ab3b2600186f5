"""What a program that gives the tasks of a run finds, and what it has said of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from disbatch.keystore.store import KeyStore

SOURCE_NAME = b"task source name"
DONE_TASK = b"task source done task"
RESULT_KEY = b"task source result key"
TASK_KEY = b"task source task key"


@dataclass(frozen=True)
class SignIn:
    """A source: its name, the line that says that there are no more (`done`), the key that its lines come
    under, and the one that its results go to; without that, nobody wants them."""

    name: bytes
    done: bytes
    results: bytes
    tasks: bytes


@dataclass(frozen=True)
class Desk:
    """Where a source signs in. `store`: the key store of the run, which `where` names; `environment`: that of
    a command that gives the tasks; `signed_in` is told who came, `say` gets a line for the user."""

    store: KeyStore
    where: str
    environment: Mapping[bytes, bytes]
    signed_in: Callable[[SignIn], None]
    say: Callable[[str], None]
