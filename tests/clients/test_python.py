"""A client that openapi-python-client makes of the document alone, typed from end to end, plays the whole story."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from stillframe.domain.errors import BackendError
from stillframe.domain.instance import PowerState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.api.running import Running

PACKAGE = "generated_client"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def generated(api: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the client's package lies in."""
    folder = tmp_path_factory.mktemp("client")
    document = folder / "openapi.json"
    document.write_text(json.dumps(api.call("GET", "/openapi.json").json()))
    (folder / "config.yaml").write_text("post_hooks: []\n")
    command = (
        *(Path(sys.executable).with_name("openapi-python-client"), "generate", "--fail-on-warning", "--meta", "none"),
        *("--path", document, "--config", folder / "config.yaml", "--output-path", folder / PACKAGE),
    )
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


class Client:
    """The generated functions, with the service and the project given to each."""

    def __init__(self, url: str, project_id: str) -> None:
        self.models = importlib.import_module(f"{PACKAGE}.models")
        self._client = importlib.import_module(f"{PACKAGE}.client").Client(base_url=url)
        self._project_id = project_id

    def call(self, name: str, *ids: str, **arguments: Any) -> tuple[int, Any]:
        """The status, and the reply as an object of the generated model."""
        function = importlib.import_module(f"{PACKAGE}.api.default.{name}").sync_detailed
        reply = function(self._project_id, *ids, client=self._client, **arguments)
        return int(reply.status_code), reply.parsed

    def act(self, server_id: str, body: Any) -> tuple[int, Any]:
        return self.call("act_on_an_instance", server_id, body=body)

    def end_of(self, task_uri: str) -> Any:
        """The details of a task when none of its work is pending any more."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(task_uri).query).items()}
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            status, reply = self.call("watch_a_task", **query)
            assert status == 200, reply
            if not reply.details.pending_tasks.additional_properties:
                return reply.details
            time.sleep(0.02)
        raise AssertionError(f"the task did not end: {reply.details}")

    def show(self, snapshot_id: str) -> Any:
        status, reply = self.call("show_an_instance_snapshot", snapshot_id)
        assert status == 200, reply
        return reply.instance_snapshot


def test_every_operation_has_a_function(generated: Path, api: Running) -> None:
    made = {path.stem for path in (generated / PACKAGE / "api" / "default").glob("*.py")} - {"__init__"}
    paths = api.call("GET", "/openapi.json").json()["paths"]
    assert made == {operation["operationId"] for methods in paths.values() for operation in methods.values()}
    assert {"act_on_an_instance", "ask_about_a_volume", "update_an_instance_snapshot"} < made


@pytest.mark.usefixtures("generated")
def test_the_generated_client_plays_the_whole_story(api: Running) -> None:
    instance = api.instance(power_state=PowerState.ACTIVE)
    client = Client(api.url, instance.project_id)
    models = client.models
    first, second = instance.volume_ids

    _status, listed = client.call("list_instances_with_details", all_tenants="false")
    assert [one.id for one in listed.servers] == [instance.id]
    body = models.VmSnapshotAction(vm_snapshot=models.VmSnapshot(name="nightly", volumes=[first, second]))
    status, created = client.act(instance.id, body)
    assert (status, type(created)) == (200, models.CreateReply)
    snapshot_id = created.instance_snapshot.id
    details = client.end_of(created.instance_snapshot.task_uri)
    assert (details.progress, details.fault) == (100, None)
    assert details.completed_tasks["SnapshotDone"] == details.flow_details["InstSnapshotFlow"] == "SUCCESS"

    changes = models.UpdateSnapshot(name="weekly", description="by a generated client")
    body = models.InstanceSnapshotAction(instance_snapshot=changes)
    status, updated = client.call("update_an_instance_snapshot", snapshot_id, body=body)
    assert (status, updated.instance_snapshot.id) == (200, snapshot_id)
    shown = client.show(snapshot_id)
    assert (shown.name, shown.description, shown.status) == ("weekly", "by a generated client", "available")
    assert {*shown.snapshots.additional_properties} == {first, second}

    restore = models.VmRestore(instance_snapshot_id=snapshot_id)
    status, refused = client.act(instance.id, models.VmRestoreAction(vm_restore=restore))
    assert (status, type(refused)) == (400, models.FaultBadRequest)
    assert "force" in refused.bad_request.message
    restore.force = True
    api.faults.fail("restore", BackendError("broken by the test"), second)
    status, task = client.act(instance.id, models.VmRestoreAction(vm_restore=restore))
    assert (status, type(task)) == (202, models.TaskReply)
    details = client.end_of(task.task_uri)
    assert details.flow_details["InstRestoreFlow"] == details.completed_tasks["SnapshotDone"] == "FAILURE"
    assert "broken by the test" in details.fault.message
    assert client.show(snapshot_id).failed_snapshots.additional_properties.keys() == {second}

    api.faults.mend("restore", second)
    rollback = models.VmRestore(instance_snapshot_id=snapshot_id, rollback="True", force="true")
    status, task = client.act(instance.id, models.VmRestoreAction(vm_restore=rollback))
    assert (status, client.end_of(task.task_uri).progress) == (202, 100)

    retry = models.VmRestore(instance_snapshot_id=snapshot_id, retry=True, force=True)
    status, refused = client.act(instance.id, models.VmRestoreActionUnderscored(vm_restore=retry))
    assert (status, "restore-error" in refused.bad_request.message) == (400, True)
    status, gone = client.call("delete_an_instance_snapshot", snapshot_id)
    assert (status, client.end_of(gone.task_uri).flow_details["InstSnapshotDeleteFlow"]) == (200, "SUCCESS")
    status, missing = client.call("show_an_instance_snapshot", snapshot_id)
    assert (status, missing.item_not_found.code) == (404, 404)
    status, refused = client.call(
        "ask_about_a_volume", first, body=models.CopyProgressAction(copy_progress=models.CopyProgress())
    )
    assert (status, "not on" in refused.bad_request.message) == (400, True)
