"""What a storm consists of, all of it from one seed: what is asked of each instance, and what goes wrong meanwhile."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.property.model import Model

DISKS: Final = ("a", "b")
_MOST_SNAPSHOTS: Final = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done with an instance; `fails` are the disks whose restore fails.

    `write` is done by the guest, so to speak: new content for a disk. All others are requests; `undo` is a restore that
    fails before any volume has changed.
    """

    kind: str
    snapshot: str = ""
    fails: tuple[str, ...] = ()
    disk: str = ""
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Blow:
    """Something that goes wrong, so many seconds after what went wrong before, and for so many seconds.

    `kind`: kill, end in order, or stop; `victim`: worker, api, board, database; `number`: which of them.
    """

    after: float
    kind: str
    victim: str
    number: int
    seconds: float


def content(token: str) -> bytes:
    """Recognizable bytes for a disk."""
    return hashlib.sha512(token.encode()).digest()


def first_content(instance: str, disk: str) -> bytes:
    return content(f"{instance}-{disk}-0")


def steps(seed: int, instance: str, operations: int) -> list[Step]:
    """What is done with one instance; about every second one is left without any snapshots."""
    rng = random.Random(f"{seed}-{instance}")  # it has to be repeatable
    model = Model({disk: first_content(instance, disk) for disk in DISKS})
    chosen: list[Step] = []
    for number in range(operations):
        if model.fence is None and rng.random() < 0.6:
            disk = rng.choice(DISKS)
            chosen.append(Step("write", disk=disk, content=content(f"{instance}-{disk}-{number + 1}")))
            apply(model, chosen[-1])
        chosen.append(_request(rng, model, f"{instance}-{number}"))
        apply(model, chosen[-1])
    if rng.random() < 0.5:
        chosen.extend(Step("delete", snapshot) for snapshot in model.snapshots)
    return chosen


def apply(model: Model, step: Step) -> None:
    """What a step makes of an instance; the model's snapshots have their names for ids."""
    if step.kind == "write":
        model.disks[step.disk] = step.content
    elif step.kind == "create":
        model.create(step.snapshot, step.snapshot, "", DISKS, fails=False)
    elif step.kind == "undo":
        model.restore_undone(step.snapshot)
    elif step.kind == "delete":
        model.delete(step.snapshot, ())
    else:
        getattr(model, step.kind)(step.snapshot, step.fails)


def blows(seed: int, *, claim_seconds: float, workers: int, apis: int) -> Iterator[Blow]:
    """What goes wrong, without an end."""
    rng = random.Random(f"{seed}-blows")  # it has to be repeatable
    while True:
        victim = rng.choices(["worker", "api", "board", "database"], [12, 4, 2, 1])[0]
        if victim in ("board", "database"):
            kind, seconds = rng.choice(["kill", "end"]), rng.uniform(0.2, 3.0)
        elif rng.random() < 0.5:
            kind, seconds = rng.choice(["kill", "kill", "end"]), rng.uniform(0.0, 1.0)
        elif rng.random() < 0.4 or victim == "api":
            kind, seconds = "stop", rng.uniform(0.2, 0.7) * claim_seconds
        else:
            kind, seconds = "stop", rng.uniform(1.1, 2.5) * claim_seconds
        number = rng.randrange({"worker": workers, "api": apis}.get(victim, 1))
        yield Blow(rng.uniform(0.3, 2.5), kind, victim, number, seconds)


def _request(rng: random.Random, model: Model, name: str) -> Step:
    choices: list[tuple[str, int]] = [("create", 3)] if model.fence is None else []
    weights = {"restore": 4, "retry": 4, "rollback": 4, "delete": 1}
    choices += [(kind, weight) for kind, weight in weights.items() if model.ready_for(kind)]
    if model.fence is None and len(model.snapshots) >= _MOST_SNAPSHOTS:
        choices = [("restore", 1), ("delete", 1)]
    kind = rng.choices([kind for kind, _ in choices], [weight for _, weight in choices])[0]
    if kind == "create":
        return Step(kind, name)
    snapshot = rng.choice(model.ready_for(kind))
    fails: tuple[str, ...] = ()
    if kind != "delete" and rng.random() < {"restore": 0.4, "retry": 0.3, "rollback": 0.2}[kind]:
        failed = model.snapshots[snapshot].failed or set()
        # A rollback leaves alone what the restore had not touched.
        asked = {"restore": {*DISKS}, "retry": failed or {*DISKS}, "rollback": {*DISKS} - failed}[kind]
        fails = tuple(rng.sample(sorted(asked), min(1, len(asked))))
    return Step(kind, snapshot, fails)
