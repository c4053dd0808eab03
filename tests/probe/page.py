"""A client that knows the ten operations of IBM's page and nothing else: no schema, no module and no table of ours.

It speaks through the standard library, and says of every reply what the page says of it. Of a task it asks nothing but
its `task_uri`, and tells from the answer alone whether it has ended, how, and why.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

Document = dict[str, Any]

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")
_PATIENCE: Final = 60.0
_ENDS: Final = {"SUCCESS", "FAILURE", "REVERTED"}
_STATUSES: Final = {
    "creating", "available", "error", "restoring", "restore-error", "rolling-back", "rollback-error", "deleting",
    "error-deleting",
}  # fmt: skip
_MAPPING: Final = {
    "name", "status", "source_vdisk_name", "target_vdisk_name", "progress", "incremental", "restoring",
    "restore_progress", "copyrate",
}  # fmt: skip


@dataclass(frozen=True)
class End:
    """How a task ended: told by its own document, without a look at anything else."""

    good: bool
    why: str | None
    percents: list[int]


@dataclass(frozen=True)
class Page:
    """The ten operations, for one project of the service at `url`."""

    url: str
    project_id: str
    token: str = ""

    def ask(self, method: str, uri: str, body: object = None) -> tuple[int, Document]:
        """One request; status and document."""
        request = urllib.request.Request(  # noqa: S310  # of a service on loopback
            uri if uri.startswith("http") else self.url + uri,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "X-Auth-Token": self.token} if self.token else {},
            method=method,
        )
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as reply:  # noqa: S310  # as above
                status, headers, raw = reply.status, reply.headers, reply.read()
        except urllib.error.HTTPError as error:
            status, headers, raw = error.code, error.headers, error.read()
        assert headers["X-Openstack-Request-Id"].startswith("req-")
        assert headers["Content-Type"] == "application/json"
        document = json.loads(raw)
        assert isinstance(document, dict)
        return status, document

    # 1 to 5

    def create(self, server_id: str, **arguments: Any) -> tuple[str, str]:
        """The id and the task of a new instance snapshot."""
        status, document = self._act(server_id, {"vm-snapshot": arguments})
        assert status == 200, document
        assert document.keys() == {"instance_snapshot"}
        made = document["instance_snapshot"]
        assert made.keys() == {"task_uri", "id"}
        return _text(made["id"]), self._task(made["task_uri"], "snapshot", made["id"])

    def list_all(self) -> list[Document]:
        status, document = self.ask("GET", self._snapshots())
        assert status == 200, document
        for shown in document["instance_snapshots"]:
            self._object(shown)
        found: list[Document] = document["instance_snapshots"]
        return found

    def show(self, snapshot_id: str) -> Document:
        status, document = self.ask("GET", self._snapshots(f"/{snapshot_id}"))
        assert (status, [*document]) == (200, ["instance_snapshot"]), document
        return self._object(document["instance_snapshot"])

    def delete(self, snapshot_id: str) -> str:
        status, document = self.ask("DELETE", self._snapshots(f"/{snapshot_id}"))
        assert (status, [*document]) == (200, ["task_uri"]), document
        return self._task(document["task_uri"], "delete", snapshot_id)

    def update(self, snapshot_id: str, **changes: str) -> None:
        status, document = self.ask("PUT", self._snapshots(f"/{snapshot_id}"), {"instance-snapshot": changes})
        assert (status, document) == (200, {"instance_snapshot": {"id": snapshot_id}})

    # 6

    def end_of(self, task_uri: str) -> End:
        """Ask for the progress until nothing is pending."""
        percents: list[int] = []
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            status, document = self.ask("GET", task_uri)
            assert (status, [*document]) == (200, ["details"]), document
            details = document["details"]
            assert {"progress", "flow_details", "completed_tasks", "pending_tasks"} <= details.keys()
            assert isinstance(details["progress"], int)
            percents.append(details["progress"])
            (state,) = details["flow_details"].values()
            completed, pending = details["completed_tasks"], details["pending_tasks"]
            assert "SnapshotDone" in {**completed, **pending}
            assert not completed.keys() & pending.keys()
            if not pending:
                return self._end(details, state, percents)
            assert details["progress"] < 100
            assert state not in _ENDS
            assert (details["finished_at"], details["fault"]) == (None, None)
            time.sleep(0.01)
        raise AssertionError(f"no end: {details}")

    def _end(self, details: Document, state: str, percents: list[int]) -> End:
        good = state == "SUCCESS"
        assert state in _ENDS
        assert percents == sorted(percents)
        assert (percents[-1] == 100) is good
        assert (details["completed_tasks"]["SnapshotDone"] == "SUCCESS") is good
        assert _TIME.fullmatch(details["finished_at"])
        if not good:
            assert details["fault"].keys() == {"code", "message", "created_at"}
        return End(good, None if good else _text(details["fault"]["message"]), percents)

    # 7 to 9

    def restore(self, server_id: str, snapshot_id: str, **arguments: Any) -> str:
        """Restore, or with `retry` or `rollback` what the page calls so."""
        status, document = self.try_restore(server_id, snapshot_id, **arguments)
        assert (status, [*document]) == (202, ["task_uri"]), document
        way = "retry" if arguments.get("retry") else "rollback" if arguments.get("rollback") else ""
        return self._task(document["task_uri"], f"restore-{way}" if way else "restore", snapshot_id)

    def try_restore(self, server_id: str, snapshot_id: str, **arguments: Any) -> tuple[int, Document]:
        return self._act(server_id, {"vm-restore": {"instance_snapshot_id": snapshot_id, **arguments}})

    # 10

    def copy_progress(self, volume_id: str, *, details: bool) -> list[Document]:
        path = f"/volume/v3/{self.project_id}/volumes/{volume_id}/action"
        status, document = self.ask("POST", path, {"copy-progress": {"details": details}})
        assert (status, [*document]) == (202, ["copy_details"]), document
        mappings: list[Document] = document["copy_details"]
        for mapping in mappings:
            assert mapping.keys() >= _MAPPING
            assert all(value is None or isinstance(value, str) for value in mapping.values()), mapping
            assert (mapping["copyrate"] is None) is not details
            assert 0 <= int(mapping["progress"]) <= 100
            assert mapping["incremental"] in ("on", "off")
            assert mapping["restoring"] in ("yes", "no")
        return mappings

    def _act(self, server_id: str, body: Document) -> tuple[int, Document]:
        return self.ask("POST", f"/compute/v2.1/{self.project_id}/servers/{server_id}/action", body)

    def _snapshots(self, rest: str = "") -> str:
        return f"/volume/v3/{self.project_id}/instance-snapshots{rest}"

    def _task(self, task_uri: str, action: str, snapshot_id: str) -> str:
        pattern = rf".*/instance-snapshots/get_progress\?action={action}&task_id=[0-9a-f-]{{36}}&id={snapshot_id}"
        assert re.fullmatch(pattern, task_uri), task_uri
        assert task_uri.startswith(self.url)
        return task_uri

    def _object(self, shown: Document) -> Document:
        for key in ("id", "name", "description", "status", "instance_id", "created_at"):
            _text(shown[key])
        assert shown["status"] in _STATUSES
        assert _TIME.fullmatch(shown["created_at"])
        assert (shown["updated_at"] is None) == (shown["status"] == "creating"), shown
        assert shown["updated_at"] is None or _TIME.fullmatch(shown["updated_at"])
        for key in ("snapshots", "temp_snapshots", "failed_snapshots"):
            assert shown[key] is None or all(isinstance(one, str) for pair in shown[key].items() for one in pair)
        assert shown["task_uri"] is None or shown["task_uri"].startswith(self.url)
        return shown


def fault(status: int, document: Document, name: str) -> str:
    """The message of a refusal in the style of Nova and Cinder."""
    assert document.keys() == {name}, document
    assert document[name].keys() == {"code", "message"}
    assert document[name]["code"] == status
    return _text(document[name]["message"])


def _text(value: object) -> str:
    assert isinstance(value, str)
    return value
