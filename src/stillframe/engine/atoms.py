"""Our tasks as TaskFlow runs them: what it knows of each is a name, and what comes of it goes by that name too."""

from __future__ import annotations

from typing import Any

from taskflow import task
from taskflow.patterns import linear_flow, unordered_flow

from stillframe.engine.faults import storable
from stillframe.engine.task import Outcomes, Task
from stillframe.engine.work import Work


def flow_of(work: Work) -> linear_flow.Flow:
    """The flow that does a work."""
    flow = linear_flow.Flow(work.name)
    for number, step in enumerate(work.steps):
        if isinstance(step, Task):
            flow.add(_Atom(step))
        else:
            flow.add(unordered_flow.Flow(f"{work.name}_{number}").add(*(_Atom(one) for one in step)))
    return flow


def undo(ours: Task[Any]) -> None:
    """Undo a task, outside of any flow; raises errors of our tree."""
    with ours.around():
        try:
            ours.undo()
        except BaseException as error:  # noqa: BLE001  # see below
            raise storable(error, f"{ours.name} (revert)") from None


class _Atom(task.Task):  # type: ignore[misc]  # untyped library
    """Whatever leaves it leaves it as an error of our tree without a cause.

    TaskFlow writes a failure down with its causes, traceback and arguments; what is foreign in them cannot always be
    written, and what cannot be written would break the attempt off and come again with the next one.
    """

    def __init__(self, ours: Task[Any]) -> None:
        super().__init__(name=ours.name, provides=ours.name, requires=[one.name for one in ours.after])
        self._ours = ours

    def execute(self, **records: Any) -> Any:
        ours = self._ours
        with ours.around():
            try:
                ours.told = Outcomes(records)
                outcome = ours.do()
                return None if outcome is None else outcome.to_data()
            except BaseException as error:  # noqa: BLE001  # whatever it is, somebody waits for the operation's end
                raise storable(error, f"{ours.name} (execute)") from None

    def revert(self, **_records: Any) -> None:
        undo(self._ours)
