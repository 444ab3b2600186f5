"""Connect files of a run on this machine, and its keys."""

from __future__ import annotations

import os
import socket

import msgspec

from disbatch.wire.connect import ConnectFile, RunKeys
from disbatch.wire.engine_protocol import PROTOCOL

KEYS = RunKeys.generate()


def connect_file(*addresses: str, keys: RunKeys = KEYS) -> ConnectFile:
    return ConnectFile(
        protocol=PROTOCOL,
        jobid="J",
        host=socket.gethostname(),
        pid=os.getpid(),
        started=0.0,
        addresses=list(addresses),
        status_file="s",
        directory="d",
        **msgspec.structs.asdict(keys),
    )
