"""The parts of a driver, complete before it runs; `assembly` builds them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from disbatch.contexts.spawn import Spawned
from disbatch.contexts.walltime import TimeLimit
from disbatch.driver.addresses import Addresses
from disbatch.driver.attach_requests import AttachRequests
from disbatch.driver.attachments import Attachments
from disbatch.driver.commands import UserCommands
from disbatch.driver.engine_table import EngineTable
from disbatch.driver.engines import EngineManager
from disbatch.driver.feed import Feed
from disbatch.driver.file_watch import FileWatch
from disbatch.driver.holds import Holds
from disbatch.driver.keystore import KeyStorePublisher
from disbatch.driver.recorder import Journal, Recorder
from disbatch.driver.result_feed import ResultFeed
from disbatch.driver.settings import Listener, Observer, Settings
from disbatch.driver.status_collector import StatusCollector
from disbatch.driver.status_feed import StatusFeed
from disbatch.driver.status_writer import Acknowledgements, StatusWriter
from disbatch.driver.submissions import Submissions
from disbatch.driver.tally import Tally
from disbatch.plan.plan import Plan
from disbatch.wire.driver_socket import Hub


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """`early`: the local engine that was started before the driver, if any. `over` is done when the run is
    over; it has an exception if the driver failed."""

    loop: asyncio.AbstractEventLoop
    over: asyncio.Future[None]
    settings: Settings
    observer: Observer
    listeners: Sequence[Listener]
    early: Spawned | None
    hostname: str
    # decisions, and what they need
    plan: Plan
    feed: Feed
    holds: Holds
    time_limit: TimeLimit
    # engines
    hub: Hub
    addresses: Addresses
    engines: EngineManager
    engine_table: EngineTable
    # the record
    record: StatusWriter
    acknowledgements: Acknowledgements
    recorder: Recorder
    tally: Tally
    journal: Journal
    files: FileWatch
    # clients
    attachments: Attachments
    attach_requests: AttachRequests
    submissions: Submissions
    user_commands: UserCommands
    keystore: KeyStorePublisher
    result_feed: ResultFeed
    collector: StatusCollector
    status_feed: StatusFeed
