"""TaskFlow's private names: all that is used of them, for TaskFlow offers nothing else for it.

Nothing of them is promised from one of its releases to the next, so that a new one is tried before it is allowed.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import sqlalchemy as sa
from taskflow import exceptions, states
from taskflow.engines.action_engine import builder
from taskflow.engines.action_engine import engine as engines
from taskflow.persistence.backends import impl_sqlalchemy

from stillframe.domain.errors import Superseded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Guard: TypeAlias = "Callable[[sa.Connection], None]"


class _Connection(impl_sqlalchemy.Connection):  # type: ignore[misc]  # untyped library
    """The stock connection, but a record that has not changed is not written again.

    Each change of a flow's state would rewrite all of its tasks.
    """

    def _update_atom_details(self, connection: sa.Connection, atom: Any, stored: Any) -> None:
        before = stored.to_dict()
        stored.merge(atom)
        if stored.to_dict() != before:
            table = self._tables.atomdetails
            connection.execute(sa.update(table).where(table.c.uuid == stored.uuid).values(stored.to_dict()))


class SharedBackend(impl_sqlalchemy.SQLAlchemyBackend):  # type: ignore[misc]  # untyped library
    """The stock backend with one shared connection object.

    The stock one builds new table objects for every operation, so that SQLAlchemy's cache of compiled statements never
    hits; the object has no state of its own and can serve all threads.
    """

    def __init__(self, engine: sa.Engine, connection: Any = None) -> None:
        super().__init__({}, engine=engine)
        self._shared = connection or _Connection(self, upgrade_lock=self._upgrade_lock)

    def get_connection(self) -> Any:
        return self._shared

    def guarded(self, guard: Guard) -> SharedBackend:
        """The same, with every transaction that writes beginning with `guard`."""
        connection = copy.copy(self._shared)
        # Made anew, it would have new tables, see above; and it has no other way to be given an engine.
        connection._engine = _GuardedEngine(self._engine, guard)  # noqa: SLF001
        return SharedBackend(self._engine, connection)


class _GuardedEngine:
    """What TaskFlow's connection uses of an engine."""

    def __init__(self, engine: sa.Engine, guard: Guard) -> None:
        self._engine = engine
        self._guard = guard

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        with self._engine.begin() as connection:
            self._guard(connection)
            yield connection

    def connect(self) -> sa.Connection:
        return self._engine.connect()


def is_superseded(error: BaseException | None) -> bool:
    """Whether an engine was ended by this, be it alone or among the failures of tasks that ran at a time."""
    return isinstance(error, Superseded) or (
        isinstance(error, exceptions.WrappedFailure) and error.check(Superseded) is not None
    )


class _SupersededIsExpected(logging.Filter):
    """Drops what TaskFlow tells, as its own failure, of an engine that ends because its operation is another's."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and is_superseded(record.exc_info[1]))


_FILTER: Final = _SupersededIsExpected()


def expect_superseded() -> None:
    """Leave it to who runs an engine to tell that it was superseded; to do so twice is fine."""
    for module in (builder, engines):
        logging.getLogger(module.__name__).addFilter(_FILTER)


class _EndsOnce:
    """For an engine: when it fails, and its failure cannot be written down either, the failure is what is raised."""

    def _change_state(self, state: str) -> None:
        try:
            super()._change_state(state)  # type: ignore[misc]
        except Superseded:
            if state != states.FAILURE:
                raise


class SerialEngine(_EndsOnce, engines.SerialActionEngine):  # type: ignore[misc]  # untyped library
    """The stock engine that runs one task after another."""


class ParallelEngine(_EndsOnce, engines.ParallelActionEngine):  # type: ignore[misc]  # untyped library
    """The stock engine that runs tasks at a time."""


class OpenRedisBoard:
    """What is inside of a stock board on Redis; for a class that is one, too."""

    @classmethod
    def prepare(cls, client: Any) -> None:
        """Whatever each of its clients needs before it is used."""

    @classmethod
    def _make_client(cls, conf: Mapping[str, Any]) -> Any:
        client = super()._make_client(conf)  # type: ignore[misc]
        cls.prepare(client)
        return client

    def server(self) -> Any:
        """The client library's connection."""
        return self._client  # type: ignore[attr-defined]

    def written(self, owner: str) -> bytes:
        """An owner as a claim on the server names it."""
        return bytes(self._encode_owner(owner))  # type: ignore[attr-defined]


class OpenEtcdBoard:
    """What is inside of a stock board on etcd; for a class that is one, too."""

    def options(self) -> dict[str, Any]:
        """Those of its options that are the client library's."""
        conf = self._conf  # type: ignore[attr-defined]
        known = self.ETCD_CONFIG_OPTIONS  # type: ignore[attr-defined]
        return {key: kind(conf[key]) for key, kind in known if key in conf}

    def use(self, client: Any) -> None:
        """Be connected by a client."""
        self._client = client
        self._state = self.CONNECTED_STATE  # type: ignore[attr-defined]

    def server(self) -> Any:
        """The client library's connection."""
        return self._client

    def path_of(self, name: str) -> str:
        """Where something lies below the board's folder."""
        return str(self._create_path(self._root_path, name))  # type: ignore[attr-defined]
