"""Whatever an array answers, the driver does its work or raises an error of our tree, and comes to an end."""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import requests
from hypothesis import given
from hypothesis import strategies as st

from stillframe.domain.errors import Interrupted
from stillframe.domain.instance import Attachment, CinderSource, Instance, PowerState, Volume
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference
from stillframe.drivers.call import Call
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.mappings import FlashCopyCheck
from stillframe.drivers.storage_virtualize.options import ArrayOptions, Options, Strategy
from stillframe.drivers.storage_virtualize.storage import StorageVirtualize
from stillframe.drivers.storage_virtualize.volumes import ManagedVolumes
from stillframe.foreign.session import Bounded
from tests.fuzz.hostility import CASES, PLANS, Twist, Twisting, require_ours
from tests.lab.storage_virtualize import commands
from tests.lab.storage_virtualize.array import Array as Simulated
from tests.lab.storage_virtualize.objects import GRAIN, Behaviour, Refusal

VOLUME: Final = "33333333-3333-3333-3333-333333333333"
SNAPSHOT: Final = "44444444-4444-4444-4444-444444444444"
OPERATION: Final = "55555555-5555-5555-5555-555555555555"
NAME: Final = CopyName(CopyKind.SNAPSHOT, SNAPSHOT, VOLUME, OPERATION)
PASSWORD: Final = "the-password"
TOKEN: Final = "the-token"
BOUND: Final = 20.0


class Answering(Bounded, Twisting):
    """A simulated array within this process, some of whose replies are twisted."""

    def __init__(self, array: Simulated, plan: dict[int, Twist]) -> None:
        super().__init__()
        self.array, self.plan, self.answer = array, plan, self._answer

    def _answer(self, request: requests.PreparedRequest) -> tuple[int, Any, dict[str, str]]:
        parts = [unquote(part) for part in urlsplit(request.url or "").path.split("/")[3:]]
        if parts[0] == "auth":
            return 200, {"token": TOKEN}, {}
        try:
            given = json.loads(request.body or b"{}")
            return 200, commands.run(self.array, parts[0], parts[1] if len(parts) > 1 else None, given), {}
        except Refusal as refusal:
            return 500, str(refusal), {}


class Platform:
    """The volumes that a platform has on the array."""

    def list_volumes(self, project_id: str | None) -> list[Volume]:  # noqa: ARG002  # of the port
        return [self.get_volume(VOLUME)]

    def get_volume(self, volume_id: str) -> Volume:
        return Volume(volume_id, "p", "v", 4 * GRAIN, "in-use", instance_id="i")


INSTANCE: Final = Instance("i", "p", "vm", PowerState.SHUTOFF, (Attachment(VOLUME, "vda", CinderSource()),))


class Story:
    """The driver, and an array that it speaks to."""

    def __init__(self, strategy: Strategy, array: Simulated, plan: dict[int, Twist]) -> None:
        self.way = Answering(array, plan)
        address = ArrayOptions("a", "http://array.test", "u", PASSWORD, timeout=5, first_wait=0.0)
        arrays = Arrays([Array(Client(address, self.way))])
        volumes = ManagedVolumes(Platform(), "volume-%s")  # type: ignore[arg-type]  # only what it asks for
        options = Options(poll_seconds=0.0, strategy=strategy, copy_rate=150)
        self.storage = StorageVirtualize(options, arrays, volumes)
        self.check = FlashCopyCheck(arrays, volumes)
        self._calls = itertools.count()

    def call(self) -> Call:
        return Call(OPERATION, "req-1", self._bounded, lambda _done, _total: None)

    def _bounded(self) -> None:
        if next(self._calls) > 300:
            raise Interrupted("the operation is past its deadline, as the test wished")

    def cut(self) -> str:
        prepared = self.storage.prepare_cut(self.call(), INSTANCE, [NAME])
        return self.storage.cut(self.call(), INSTANCE, [NAME], prepared).snapshots[0].id

    def complete(self, copy_id: str) -> None:
        assert self.storage.complete(self.call(), CopyReference(copy_id)).ready


@functools.cache
def _with_a_copy(strategy: Strategy, *, completed: bool) -> tuple[Simulated, str]:
    """An array with one volume and one copy of it."""
    array = Simulated(behaviour=Behaviour(speed=10000.0, code_level="8.6.2.0 (build 1)"))
    array.add_vdisk(f"volume-{VOLUME}", 4 * GRAIN)
    story = Story(strategy, array, {})
    copy_id = story.cut()
    if completed:
        story.complete(copy_id)
    return array, copy_id


def begun(strategy: Strategy, act: str, plan: dict[int, Twist]) -> tuple[Story, str]:
    """A story about an array of its own, and the id of the copy on it."""
    array, copy_id = _with_a_copy(strategy, completed=act != "complete")
    return Story(strategy, copy.deepcopy(array, {id(array.clock): array.clock}), plan), copy_id


def _cut(story: Story, _copy_id: str) -> None:
    prepared = story.storage.prepare_cut(story.call(), INSTANCE, [NAME])
    for made in story.storage.cut(story.call(), INSTANCE, [NAME], prepared).snapshots:
        story.complete(made.id)


ACTS: Final[dict[str, Callable[[Story, str], object]]] = {
    "cut": _cut,
    "complete": lambda story, copy_id: story.complete(copy_id),
    "find": lambda story, _copy_id: story.storage.find(None),
    "find some": lambda story, _copy_id: story.storage.find(SNAPSHOT, "i"),
    "check a cut": lambda story, _copy_id: story.storage.check_cut(INSTANCE, [VOLUME]),
    "check a restore": lambda story, copy_id: story.storage.check_restore(INSTANCE, {VOLUME: copy_id}),
    "restore": lambda story, copy_id: story.storage.restore(story.call(), INSTANCE, VOLUME, copy_id),
    "delete": lambda story, copy_id: story.storage.delete(story.call(), CopyReference(copy_id)),
    "copy progress": lambda story, _copy_id: story.check.mappings(VOLUME, details=False),
    "copy progress in detail": lambda story, _copy_id: story.check.mappings(VOLUME, details=True),
}


@given(
    act=st.sampled_from(sorted(ACTS)),
    strategy=st.sampled_from([Strategy.FLASHCOPY, Strategy.SNAPSHOTS]),
    plan=PLANS,
)
@CASES
def test_any_replies_lead_to_an_end_that_is_ours(act: str, strategy: Strategy, plan: dict[int, Twist]) -> None:
    story, copy_id = begun(strategy, act, plan)
    require_ours(lambda: ACTS[act](story, copy_id), BOUND, PASSWORD, TOKEN)


def test_right_replies_lead_to_the_end_that_was_wished() -> None:
    for act, strategy in itertools.product(ACTS, (Strategy.FLASHCOPY, Strategy.SNAPSHOTS)):
        story, copy_id = begun(strategy, act, {})
        ACTS[act](story, copy_id)
        assert story.way.count > 0
