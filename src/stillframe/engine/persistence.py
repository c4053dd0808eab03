"""TaskFlow's SQLAlchemy persistence on the store's own database, without the costs that buy nothing here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from taskflow import exceptions, states
from taskflow.persistence import models

from stillframe.domain.errors import StillframeError, Unavailable
from stillframe.engine.internals import ParallelEngine, SerialEngine, SharedBackend, expect_superseded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from stillframe.engine.internals import Guard

_SILENCE: Final = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, sa.exc.DisconnectionError)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """What the database raises within leaves as an error of our tree; TaskFlow hands some of it on as it is."""
    try:
        yield
    except (exceptions.StorageFailure, sa.exc.SQLAlchemyError) as error:
        cause = (error.__cause__ or error) if isinstance(error, exceptions.StorageFailure) else error
        if isinstance(cause, _SILENCE):
            ours: StillframeError = Unavailable("The records of flows cannot be reached at present.")
        else:
            ours = StillframeError("The records of flows are not what they should be.")
        ours.detail = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise ours from None


class FlowBooks:
    """One logbook an operation, with one flow in it; both have the operation's id.

    While the database does not answer, every call raises `Unavailable`.
    """

    def __init__(self, writer: sa.Engine, backend: SharedBackend | None = None) -> None:
        self._writer = writer
        self.backend = backend or SharedBackend(writer)

    def guarded(self, guard: Guard) -> FlowBooks:
        """The same books, for a worker whose claim is looked at by `guard` in every transaction that writes.

        What `guard` raises undoes the transaction and leaves as it is.
        """
        return FlowBooks(self._writer, self.backend.guarded(guard))

    def upgrade(self) -> None:
        """Make TaskFlow's tables, or bring them to its release."""
        with translated():
            self.backend.get_connection().upgrade()

    def open(self, operation_id: str, flow_name: str) -> models.FlowDetail:
        """The recorded flow of an operation, made if this is its first attempt."""
        found = self.read(operation_id)
        if found is not None:
            return found
        book = models.LogBook(flow_name, uuid=operation_id)
        book.add(models.FlowDetail(flow_name, uuid=operation_id))
        with translated():
            saved = self.backend.get_connection().save_logbook(book)
        return saved.find(operation_id)

    def read(self, operation_id: str) -> models.FlowDetail | None:
        """The recorded flow of an operation with the states and results of its tasks, or None."""
        with translated(), contextlib.suppress(exceptions.NotFound):
            return self.backend.get_connection().get_flow_details(operation_id)
        return None

    def mark_suspended(self, detail: models.FlowDetail) -> None:
        """Say that a recorded flow goes on from where its tasks are."""
        detail.state = states.SUSPENDED
        with translated():
            self.backend.get_connection().update_flow_details(detail)

    def ids(self) -> list[str]:
        """The operations that have a recorded flow."""
        with translated():
            return [book.uuid for book in self.backend.get_connection().get_logbooks(lazy=True)]

    def drop(self, operation_id: str) -> None:
        """Forget a recorded flow; one that is gone already is fine."""
        with translated(), contextlib.suppress(exceptions.NotFound):
            self.backend.get_connection().destroy_logbook(operation_id)


def load(flow: Any, detail: models.FlowDetail, backend: SharedBackend, executor: Executor | None) -> Any:
    """A TaskFlow engine for a flow: serial without an executor, else parallel on it."""
    expect_superseded()
    # By class: TaskFlow's own way by name looks through the entry points of all installed packages, for each flow.
    if executor is None:
        engine = SerialEngine(flow, detail, backend, {})
    else:
        engine = ParallelEngine(flow, detail, backend, {"executor": executor})
    # Each task would write 0.0 and 1.0 in commits of their own; the operation's row has the progress that is shown.
    engine.storage.set_task_progress = lambda *_args, **_kwargs: None
    return engine
