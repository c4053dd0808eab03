"""TaskFlow's SQLAlchemy persistence on the store's own database, without the costs that buy nothing here."""

from __future__ import annotations

import contextlib
from concurrent.futures import Executor
from typing import Any

import sqlalchemy as sa
from taskflow import engines, exceptions
from taskflow.persistence import models
from taskflow.persistence.backends import impl_sqlalchemy


class SharedBackend(impl_sqlalchemy.SQLAlchemyBackend):  # type: ignore[misc]  # untyped library
    """The stock backend with one shared connection object.

    The stock one builds new table objects for every operation, so that SQLAlchemy's cache of compiled statements never
    hits; the object has no state of its own and can serve all threads.
    """

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__({}, engine=engine)
        self._shared = impl_sqlalchemy.Connection(self, upgrade_lock=self._upgrade_lock)

    def get_connection(self) -> Any:
        return self._shared


class FlowBooks:
    """One logbook an operation, with one flow in it; both have the operation's id."""

    def __init__(self, writer: sa.Engine) -> None:
        self.backend = SharedBackend(writer)

    def upgrade(self) -> None:
        """Make TaskFlow's tables, or bring them to its release."""
        self.backend.get_connection().upgrade()

    def open(self, operation_id: str, flow_name: str) -> models.FlowDetail:
        """The recorded flow of an operation, made if this is its first attempt."""
        found = self.read(operation_id)
        if found is not None:
            return found
        book = models.LogBook(flow_name, uuid=operation_id)
        book.add(models.FlowDetail(flow_name, uuid=operation_id))
        saved = self.backend.get_connection().save_logbook(book)
        return saved.find(operation_id)

    def read(self, operation_id: str) -> models.FlowDetail | None:
        """The recorded flow of an operation with the states and results of its tasks, or None."""
        try:
            return self.backend.get_connection().get_flow_details(operation_id)
        except exceptions.NotFound:
            return None

    def ids(self) -> list[str]:
        """The operations that have a recorded flow."""
        return [book.uuid for book in self.backend.get_connection().get_logbooks(lazy=True)]

    def drop(self, operation_id: str) -> None:
        """Forget a recorded flow; one that is gone already is fine."""
        with contextlib.suppress(exceptions.NotFound):
            self.backend.get_connection().destroy_logbook(operation_id)


def load(flow: Any, detail: models.FlowDetail, backend: SharedBackend, executor: Executor | None) -> Any:
    """A TaskFlow engine for a flow: serial without an executor, else parallel on it."""
    kind: dict[str, Any] = {"engine": "serial"} if executor is None else {"engine": "parallel", "executor": executor}
    engine = engines.load(flow, flow_detail=detail, backend=backend, **kind)
    # Each task would write 0.0 and 1.0 in commits of their own; the operation's row has the progress that is shown.
    engine.storage.set_task_progress = lambda *_args, **_kwargs: None
    return engine
