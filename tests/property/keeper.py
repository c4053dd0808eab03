"""A fork server that keeps one service alive over a world, and forks a fresh one on what is left when that was killed.

Unlike the crash matrix's stage, whose services live for one request, a service here goes on until it is killed or
dismissed, so that what it remembers is put to the test too.
"""

from __future__ import annotations

import json
import socket
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa

from stillframe import main
from stillframe.domain.errors import BackendError
from stillframe.drivers.platform import Drivers
from stillframe.engine.persistence import FlowBooks
from stillframe.store.tables import FENCES, INSTANCE_LOCKS, OPERATIONS
from tests.crash.points import Points, struck_drivers
from tests.crash.stage import settings_of, settle
from tests.crash.world import instance_of
from tests.harness.client import client_of
from tests.harness.faults import Faults, subject
from tests.harness.forks import ended_by, fork, serve
from tests.harness.surround import surround

_SNAPSHOTS = "/volume/v3/demo/instance-snapshots"


class Kept:
    """A service in its own process, asked over a socket."""

    def __init__(self, root: Path, answers: TextIO) -> None:
        self._answers = answers
        settings = settings_of(root)
        declaration = instance_of(root)
        self._instance_id = declaration.id
        self._points = Points(None)
        drivers = struck_drivers(settings, self._points)
        self._storage = drivers.storage
        self._names = {declaration.volume_id(disk): disk.name for disk in declaration.disks}
        self._faults = Faults()
        self._service = main.build(
            settings, drivers=Drivers(drivers.compute, surround(drivers.storage, self._faults.around))
        )
        self._points.watch(self._service.database.writer)
        self._client = client_of(self._service.wsgi)

    def perform(self, order: dict[str, Any]) -> None:
        """Start or ask, wait until everything has come to its end, and describe what there is then."""
        self._break({(fault, disk) for fault, disk in order["faults"]})
        self._points.seen.clear()
        self._points.at = order["at"]
        if "method" not in order:
            self._service.start()
        else:
            reply = self._client.simulate_request(order["method"], order["path"], json=order["body"])
            # Said at once: what was promised before a kill is to be kept after it.
            self._say({"code": reply.status_code, "reply": reply.json})
        settle(self._service)
        self._points.at = None
        self._say({"points": len(self._points.seen), "world": self._describe(), "done": True})

    def dismiss(self) -> None:
        self._service.stop()

    def _break(self, wished: set[tuple[str, str]]) -> None:
        """Let storage calls fail for good, each by its method and the name of the disk."""

        def act(name: str, method: Any, args: Any, kwargs: Any) -> Any:
            if (name, self._disk(name, subject(args))) in wished:
                raise BackendError(f"{name} failed, as the test wished")
            return method(*args, **kwargs)

        self._faults.mend()
        for name in {fault for fault, _disk in wished}:
            self._faults.put(name, partial(act, name))

    def _disk(self, method: str, key: str | None) -> str | None:
        """The name of the disk that a call is about, by the id of its volume or of its copy."""
        if method == "restore" and key is not None:
            return self._names[key]
        return next((self._names[copy.name.volume_id] for copy in self._storage.find(None) if copy.id == key), None)

    def _say(self, words: dict[str, Any]) -> None:
        self._answers.write(json.dumps(words) + "\n")
        self._answers.flush()

    def _describe(self) -> dict[str, Any]:
        with self._service.database.reader.connect() as connection:
            operations = connection.execute(sa.select(OPERATIONS).order_by(OPERATIONS.c.created_at)).mappings().all()
            fences = connection.execute(sa.select(FENCES.c.instance_id, FENCES.c.snapshot_id)).all()
            locks = connection.execute(sa.select(sa.func.count()).select_from(INSTANCE_LOCKS)).scalar_one()
        return {
            "snapshots": self._client.simulate_get(_SNAPSHOTS).json["instance_snapshots"],
            "operations": [
                {key: row[key] for key in ("id", "action", "snapshot_id", "state", "progress")} for row in operations
            ],
            "progress": self._progress(operations[-1]) if operations else None,
            "copies": [
                {
                    "id": copy.id,
                    "kind": copy.name.kind.value,
                    "snapshot": copy.name.snapshot_id,
                    "disk": self._names[copy.name.volume_id],
                    "ready": copy.ready,
                }
                for copy in self._storage.find(None)
            ],
            "fences": [list(fence) for fence in fences],
            "fenced_by": self._service.drivers.compute.fenced_by(self._instance_id),
            "locks": locks,
            "books": len(FlowBooks(self._service.database.writer).ids()),
        }

    def _progress(self, row: Any) -> Any:
        query = f"get_progress?action={row['action']}&task_id={row['id']}&id={row['snapshot_id']}"
        return self._client.simulate_get(f"{_SNAPSHOTS}/{query}").json["details"]


class Keeper:
    """Forks services, one at a time, and passes on what they answer."""

    def __init__(self) -> None:
        self._child = 0
        self._line: TextIO | None = None

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        if order["do"] == "dismiss":
            return self._dismiss()
        if self._line is None:
            self._line = self._fork(Path(order["root"]))
        self._line.write(json.dumps(order) + "\n")
        self._line.flush()
        heard: dict[str, Any] = {}
        for words in self._line:
            heard.update(json.loads(words))
            if "done" in heard or "trouble" in heard:
                return heard
        return {**heard, **self._bury()}

    def _fork(self, root: Path) -> TextIO:
        ours, theirs = socket.socketpair()

        def live() -> None:
            ours.close()
            _live(root, theirs)

        self._child = fork(live)
        theirs.close()
        return ours.makefile("rw")

    def _dismiss(self) -> dict[str, Any]:
        if self._line is None:
            return {}
        self._line.write("null\n")
        self._line.flush()
        self._line.read()
        return self._bury()

    def _bury(self) -> dict[str, Any]:
        self._line = None
        return ended_by(self._child)


def _live(root: Path, line: socket.socket) -> None:
    opened = line.makefile("rw")
    try:
        kept = Kept(root, opened)
        for order in map(json.loads, opened):
            if order is None:
                kept.dismiss()
                break
            kept.perform(order)
    except Exception:  # noqa: BLE001 -- whatever it is, the test shows it
        opened.write(json.dumps({"trouble": traceback.format_exc()}) + "\n")
        opened.flush()


def _warm_up() -> None:
    """Fill the caches of the libraries, which every service that is forked from here on then has."""
    with tempfile.TemporaryDirectory() as folder:
        service = main.build(settings_of(Path(folder)))
        client_of(service.wsgi).simulate_get(_SNAPSHOTS)
        # Never started, it has no threads, and its connections are not inherited.
        service.database.close()


if __name__ == "__main__":
    keeper = Keeper()
    serve(dict.fromkeys(("start", "ask", "dismiss"), keeper.obey), _warm_up)
