"""What an engine is told at its start: its name, its addresses, its resources; and who retires its node."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from disbatch.contexts.hosts import Hosts
from disbatch.contexts.nodes import Node
from disbatch.contexts.pool import RELEASE_AFTER, Pool
from disbatch.contexts.retire import Retirer, choose_retirement
from disbatch.contexts.slurm.context import SlurmJob
from disbatch.contexts.slurm.job import Allocation
from disbatch.contexts.slurm.resize import Shrinker
from disbatch.driver.addresses import Addresses
from disbatch.driver.engine_orders import BootstrapFactory
from disbatch.driver.settings import Settings
from disbatch.model.task import Way
from disbatch.rundir.paths import claim
from disbatch.wire.connect import RunKeys

OWN = Node("n1", 4, 2, Way.STEP, 2.0)
OTHER = Node("n2", 8, 4, Way.STEP, 2.0, gpus=2)
CHILD = Node("localhost", 4, 4, Way.CHILD)
FAR = Node("far", 4, 4, Way.SSH)


def settings(tmp_path: Path, own_node: str | None = None, **given: Any) -> Settings:
    """A run; with `own_node` one in a job of Slurm's."""
    job = None
    if own_node is not None:
        job = SlurmJob(Allocation("7", [OWN, OTHER], own_node, frozenset({"n1"}), None, None, None))
    return Settings(
        source_name="T",
        task_name="T",
        jobid="7",
        claimed=claim(str(tmp_path / "run"), "T", "7", None),
        pool=Pool(context=job or Hosts(), **given),
        directory=b"/",
        environment={},
    )


class Ears:
    """A hub and a port that listen nowhere."""

    def bind(self, address: str) -> str:
        return address

    def open(self, host: str, port: int) -> int:
        return port or 4711


def addresses(settings: Settings) -> Addresses:
    ears = Addresses(settings, Ears(), lambda socket: Ears())  # type: ignore[arg-type, return-value]
    ears.listen()
    shutil.rmtree(ears.folder)
    return ears


def test_addresses_of_steps(tmp_path: Path) -> None:
    run = settings(tmp_path, "n1")
    run.pool.nodes.extend([OWN, OTHER])
    ears = addresses(run)
    tcp = ears.for_node(OTHER)
    assert len(tcp) == 2 and all(address.startswith("tcp://") for address in tcp)
    assert ears.for_node(OWN) == [f"ipc://{ears.socket}", *tcp]


def test_a_driver_outside_the_job_has_no_node_there(tmp_path: Path) -> None:
    run = settings(tmp_path, "")
    run.pool.nodes.extend([OWN, OTHER])
    ears = addresses(run)
    assert ears.for_node(OWN) == ears.for_node(OTHER)


def test_a_child_comes_through_the_socket_alone(tmp_path: Path) -> None:
    run = settings(tmp_path)
    run.pool.nodes.append(CHILD)
    ears = addresses(run)
    assert ears.for_node(CHILD) == [f"ipc://{ears.socket}"]


@pytest.mark.parametrize(
    ("node", "own", "name"), [(CHILD, None, "me"), (FAR, None, "far"), (OWN, "n1", "n1"), (OTHER, "", "n2")]
)
def test_names_of_nodes(tmp_path: Path, node: Node, own: str | None, name: str) -> None:
    assert settings(tmp_path, own).pool.context.name_of(node, "me") == name


@pytest.mark.parametrize(
    ("node", "job", "cores"), [(OTHER, "n1", 8), (CHILD, "n1", 4), (CHILD, None, None), (FAR, None, None)]
)
def test_bootstrap(tmp_path: Path, node: Node, job: str | None, cores: int | None) -> None:
    """In a job the engine learns how many cores of its node the job has, however it is launched."""
    run = settings(tmp_path, job, gpu=True, share=["LICENSES"], bind=None)
    orders = BootstrapFactory(run.pool, b"/", {}, run.claimed.files, RunKeys.generate(), 600.0)
    told = orders.bootstrap(node, name="n2", engine="1-x", addresses=["tcp://h:1"])
    assert (told.way, told.slots, told.cores_per_task, told.cores) == (
        *(node.way, node.slots, node.cores_per_task),
        cores,
    )
    assert (told.gpu, told.share, told.bind) == (True, ["LICENSES"], None)
    assert (told.node, told.engine, told.addresses) == ("n2", "1-x", ["tcp://h:1"])


@pytest.mark.parametrize(
    ("own", "given", "kind"),
    [
        (None, {}, None),
        ("n1", {}, None),
        (None, {"retire_command": "true"}, Retirer),
        ("n1", {"retire_command": "true"}, Retirer),
        ("n1", {"release": True}, Shrinker),
    ],
)
def test_who_retires(tmp_path: Path, own: str | None, given: dict[str, Any], kind: type | None) -> None:
    run = settings(tmp_path, own, **given)

    async def choose() -> object:
        return choose_retirement(run.pool, "me", str(tmp_path), print)

    assert type(asyncio.run(choose())) is (kind or type(None))
    assert (run.pool.spare_after is None) is (kind is None)


def test_when_spare_engines_may_go(tmp_path: Path) -> None:
    command = {"retire_command": "true"}
    usual = settings(tmp_path, "n1", release=True).pool
    own = settings(tmp_path, "n1", **command).pool
    without = settings(tmp_path, **command).pool
    assert (usual.spare_after, usual.context.keep) == (RELEASE_AFTER, {"n1"})
    assert (own.spare_after, own.context.keep) == (0.0, {"n1"})
    assert (without.spare_after, without.context.keep) == (0.0, frozenset())


@pytest.mark.parametrize(("own", "said"), [("n1", "n1|n2\n"), ("", "|n2\n")])
def test_own_command_finds_the_drivers_node_only_if_it_is_the_jobs(
    tmp_path: Path, own: str, said: str
) -> None:
    run = settings(tmp_path, own, retire_command=f'echo "$DRIVER_NODE|$NODE" >> {tmp_path}/said')

    async def retire() -> None:
        retirement = choose_retirement(run.pool, "login", str(tmp_path), print)
        assert retirement is not None
        retirement.joined("n2")
        retirement.retire("n2", 0, spare=True)
        await retirement.finish()

    asyncio.run(retire())
    assert (tmp_path / "said").read_text() == said
