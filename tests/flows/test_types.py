"""`force` and a volume's id are followed from the API to a driver and back by types alone.

That the types are these is seen by mypy, which `make check` runs over the tests too: where something in between were
`Any` or came out of a dict, `assert_type` would be an error.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

import pytest
from pydantic import BaseModel

import stillframe
from stillframe.api.routes import ROUTES, Handler
from stillframe.domain.arguments import (
    Arguments,
    CreateArguments,
    DeleteArguments,
    RestoreArguments,
    UnreadableArguments,
)
from stillframe.domain.outcomes import CutMade, VolumeRestored
from stillframe.engine.task import Outcomes
from stillframe.engine.work import Attempt, Judge
from stillframe.flows import create_snapshot, plans, restore_instance
from stillframe.flows.restore_steps import FencingInstance, RestoringVolume

if TYPE_CHECKING:
    from stillframe.api import schemas
    from stillframe.domain.instance import Instance
    from stillframe.domain.operation import CopyMap, Operation, Settlement
    from stillframe.domain.snapshot import CopyName
    from stillframe.domain.verdict import Restoration
    from stillframe.drivers.call import Call
    from stillframe.drivers.storage import StorageDriver
    from stillframe.flows.step import Ports
    from stillframe.service.caller import Caller
    from stillframe.service.instance_snapshots import SnapshotService

_PACKAGE = Path(stillframe.__file__).parent
#: Between the API and the drivers.
_TYPED = [
    *sorted((_PACKAGE / "flows").glob("*.py")),
    _PACKAGE / "service" / "instance_snapshots.py",
    _PACKAGE / "engine" / "task.py",
    _PACKAGE / "engine" / "work.py",
    _PACKAGE / "domain" / "operation.py",
    _PACKAGE / "domain" / "verdict.py",
]


class Chain:
    """For mypy to follow; nobody calls it."""

    caller: Caller
    call: Call

    def force(self, body: schemas.VmRestore, service: SnapshotService, operation: Operation) -> None:
        assert_type(body.force, bool)
        service.restore(self.caller, "instance", body.instance_snapshot_id, force=body.force)
        assert_type(operation.arguments, Arguments)
        match asked := operation.arguments:
            case CreateArguments() | DeleteArguments() | UnreadableArguments():
                return
        assert_type(asked, RestoreArguments)
        assert_type(asked.force, bool)

    def fenced(self, step: FencingInstance) -> None:
        assert_type(step.asked, RestoreArguments)
        assert_type(step.asked.force, bool)

    def volumes(self, body: schemas.VmSnapshot, asked: CreateArguments, step: create_snapshot.CreatingSnapshot) -> None:
        assert_type(body.volumes, list[str] | None)
        assert_type(asked.volume_ids, tuple[str, ...])
        assert_type(step.asked, CreateArguments)
        assert_type(step.do(), CutMade)
        assert_type(step.do().copies, Mapping[str, str])

    def restored(self, step: RestoringVolume, told: Outcomes, ending: Restoration, settled: Settlement) -> None:
        assert_type(step.asked.copies, Mapping[str, str])
        assert_type(step.volume_id, str)
        assert_type(told.of(step), VolumeRestored | None)
        assert_type(ending.volumes, Mapping[str, VolumeRestored | None])
        assert_type(settled.failed_snapshots, CopyMap)

    def planned(self, ports: Ports, attempt: Attempt, asked: RestoreArguments) -> None:
        work = restore_instance.plan(ports, attempt, asked)
        assert_type(work.judge, Judge)
        assert_type(plans.planner(ports)(attempt).judge, Judge)

    def driven(self, driver: StorageDriver, instance: Instance, names: Sequence[CopyName]) -> None:
        assert_type(names[0].volume_id, str)
        driver.restore(self.call, instance, names[0].volume_id, "copy")


@pytest.mark.parametrize("file", _TYPED, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_nothing_goes_by_a_string_key(file: Path) -> None:
    assert [*string_keys(ast.parse(file.read_text()))] == []


def string_keys(tree: ast.AST) -> Iterator[str]:
    """What is taken out of something by a constant string, or put into a dict by one, with its line."""
    for node in ast.walk(tree):
        taken: list[ast.expr | None] = []
        match node:
            case ast.Subscript(slice=index, value=value) if not is_annotation(value):
                taken = [index]
            case ast.Call(func=ast.Attribute(attr="get" | "pop" | "setdefault"), args=[key, *_]):
                taken = [key]
            case ast.Dict(keys=keys):
                taken = [*keys]
        for one in taken:
            if isinstance(one, ast.Constant) and isinstance(one.value, str):
                yield f"{one.lineno}: {one.value!r}"


def is_annotation(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in {"Literal", "type", "list", "Callable"}


def test_a_string_key_is_found() -> None:
    assert [*string_keys(ast.parse("a['b']\nc.get('d')\n{'e': 1, **f}\ng[h]"))] == ["1: 'b'", "2: 'd'", "3: 'e'"]


#: Every handler that is given a request's body or query, with the model that the route table has it checked by.
_HANDLERS = [
    *((action.handler, "body", action.body) for route in ROUTES for action in route.actions),
    *((route.handler, "query", route.query) for route in ROUTES if route.handler is not None and route.query),
]


@pytest.mark.parametrize(("handler", "given", "model"), _HANDLERS)
def test_a_handler_reads_what_its_route_has_checked(handler: Handler, given: str, model: type[BaseModel]) -> None:
    """An `Exchange` is of no route's own, so that mypy believes whatever a handler says that it is given."""
    tree = ast.parse(inspect.getsource(handler))
    read = [
        node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node) == f"exchange.{given}"
    ]
    said = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and node.value in read]
    assert len(said) == len(read)
    assert {ast.unparse(one.annotation).rpartition(".")[2] for one in said} <= {model.__name__}


def test_handlers_are_found() -> None:
    assert len(_HANDLERS) > 10
