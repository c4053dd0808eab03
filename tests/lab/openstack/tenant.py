"""What a cloud user does in the lab, waited for: servers from volumes, snapshots, groups, stopping, reverting."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import requests

from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import until

__all__ = ["Tenant", "checked"]

PATIENCE = 180.0
# A deletion that is under way for so long is asked for anew: who was at it may have been killed.
_ANEW = 15.0


def checked(reply: requests.Response, expected: int | None = None) -> Any:
    """The body of a reply, or None.

    Raises:
        AssertionError: another status than this one (None: any below 400).
    """
    good = reply.status_code < 400 if expected is None else reply.status_code == expected
    assert good, f"{reply.request.method} {reply.url}: {reply.status_code} {reply.text}"
    return json.loads(reply.content) if reply.content else None


class Tenant:
    """A user of the lab; `compute` and `volume` are its APIs, `administrator` is the cloud's in the service project."""

    def __init__(self, lab: Lab, user: str) -> None:
        self.lab = lab
        self.compute = lab.api(user, "compute")
        self.volume = lab.api(user, "volumev3")
        self.administrator = lab.api("stillframe", "volumev3")

    def create_volume(self, size: int = 1, *, kind: str = "rawfile", **more: Any) -> str:
        """A new volume of `size` GiB, available."""
        body = {"size": size, "volume_type": kind, **more}
        volume_id = str(checked(self.volume.post("/volumes", json={"volume": body}))["volume"]["id"])
        self.wait_volume(volume_id, "available")
        return volume_id

    def create_server(self, volume_ids: Sequence[str]) -> str:
        """A running server with these volumes, the first of which is its root."""
        bootable = {"os-set_bootable": {"bootable": True}}
        checked(self.volume.post(f"/volumes/{volume_ids[0]}/action", json=bootable), 200)
        devices = [
            {
                "uuid": volume_id,
                "source_type": "volume",
                "destination_type": "volume",
                "boot_index": -1 if number else 0,
            }
            for number, volume_id in enumerate(volume_ids)
        ]
        body = {"name": "lab", "flavorRef": self.lab.flavor_id, "networks": "none", "block_device_mapping_v2": devices}
        server_id = str(checked(self.compute.post("/servers", json={"server": body}))["server"]["id"])
        self.wait_server(server_id, "ACTIVE")
        for volume_id in volume_ids:
            self.wait_volume(volume_id, "in-use")
        return server_id

    def create_snapshot(self, volume_id: str) -> str:
        body = {"volume_id": volume_id, "name": "lab"}
        made = checked(self.volume.post("/snapshots", json={"snapshot": body}), 202)
        snapshot_id = str(made["snapshot"]["id"])
        self.wait("snapshots", snapshot_id, "available")
        return snapshot_id

    def act(self, server_id: str, action: str, body: object = None) -> requests.Response:
        """Ask Nova for an action of a server; the reply is not checked."""
        return self.compute.post(f"/servers/{server_id}/action", json={action: body})

    def stop(self, server_id: str) -> None:
        checked(self.act(server_id, "os-stop"), 202)
        self.wait_server(server_id, "SHUTOFF")

    def start(self, server_id: str) -> None:
        checked(self.act(server_id, "os-start"), 202)
        self.wait_server(server_id, "ACTIVE")

    def reset(self, volume_id: str, status: str) -> None:
        """Set the status of a volume, and nothing but that, as the service may."""
        body = {"os-reset_status": {"status": status}}
        checked(self.administrator.post(f"/volumes/{volume_id}/action", json=body), 202)

    def revert(self, volume_id: str, snapshot_id: str) -> requests.Response:
        """Ask Cinder to revert a volume, as its owner; the reply is not checked."""
        return self.volume.post(f"/volumes/{volume_id}/action", json={"revert": {"snapshot_id": snapshot_id}})

    def wait_volume(self, volume_id: str, status: str) -> None:
        self.wait("volumes", volume_id, status)

    def wait(self, collection: str, one: str, status: str) -> None:
        """Wait for a status of something of Cinder's; an error that is not waited for ends the wait."""

        def reached() -> bool:
            shown = checked(self.volume.get(f"/{collection}/{one}"))
            (found,) = [body["status"] for body in shown.values()]
            assert found == status or "error" not in found, f"{collection}/{one} is {found}"
            return bool(found == status)

        until(reached, PATIENCE)

    def wait_server(self, server_id: str, status: str) -> None:
        def reached() -> bool:
            server = checked(self.compute.get(f"/servers/{server_id}"))["server"]
            assert server["status"] in {status, "ERROR"} or status != "ERROR"
            assert server["status"] != "ERROR" or status == "ERROR", server.get("fault")
            return server["status"] == status and server["OS-EXT-STS:task_state"] is None

        until(reached, PATIENCE)

    def remove_everything(self, patience: float = PATIENCE) -> None:
        """Delete all that is in the project, in whatever state it is, and all snapshots of that in other projects.

        Raises:
            TimeoutError: something is there still. It is left alone from now on, so that it fails one test only.
        """
        for kind in ("servers", "group_snapshots", "snapshots", "groups", "volumes"):
            removal = _Removal(self, kind)
            try:
                until(removal.is_done, patience)
            except TimeoutError as error:
                self.lab.given_up.update(one["id"] for one in removal.left)
                raise TimeoutError(f"these {kind} cannot be removed: {removal.left}") from error


class _Removal:
    """All of one kind is asked to be deleted, by the administrator; `left` is what there is still, and its status."""

    def __init__(self, tenant: Tenant, kind: str) -> None:
        self._tenant = tenant
        self._compute = tenant.lab.api("stillframe", "compute")
        self._kind = kind
        self._asked: dict[str, float] = {}
        self.left: list[dict[str, str]] = []

    def is_done(self) -> bool:
        found = {"servers": self._servers, "snapshots": self._snapshots}.get(self._kind, self._others)()
        given_up = self._tenant.lab.given_up
        self.left = [{"id": one["id"], "status": one["status"]} for one in found if one["id"] not in given_up]
        now = time.monotonic()
        for one in self.left:
            new = one["id"] not in self._asked
            asked = self._asked.setdefault(one["id"], now)
            if (new and one["status"] != "deleting") or now - asked > _ANEW:
                self._asked[one["id"]] = now
                self._ask(**one)
        return not self.left

    def _servers(self) -> list[dict[str, Any]]:
        listed = checked(self._tenant.compute.get("/servers/detail"))["servers"]
        return [{**one, "status": one["OS-EXT-STS:task_state"] or one["status"]} for one in listed]

    def _snapshots(self) -> list[dict[str, Any]]:
        # Those that the service makes lie in its own project, and no volume can go before its snapshots.
        volumes = {one["id"] for one in checked(self._tenant.volume.get("/volumes"))["volumes"]}
        listed = checked(self._tenant.administrator.get("/snapshots?all_tenants=1"))["snapshots"]
        return [one for one in listed if one["volume_id"] in volumes]

    def _others(self) -> list[dict[str, Any]]:
        return list(checked(self._tenant.volume.get(f"/{self._kind}/detail"))[self._kind])

    def _ask(self, id: str, status: str) -> None:  # noqa: A002 - as the documents have it
        """No reply is checked: it may have gone by itself, and if not, that is seen."""
        at_rest = status in ("available", "error")
        cinder, path = self._tenant.administrator, f"/{self._kind}/{id}"
        if self._kind == "servers":
            # Deletes are refused where an administrator has locked it.
            self._compute.post(f"{path}/action", json={"unlock": None})
            self._tenant.compute.delete(path)
        elif self._kind == "group_snapshots":
            if not at_rest:
                cinder.post(f"{path}/action", json={"reset_status": {"status": "error"}})
            cinder.delete(path)
        elif self._kind == "groups":
            for volume in checked(cinder.get(f"/volumes/detail?all_tenants=1&group_id={id}"))["volumes"]:
                self._detach(volume["id"], volume["status"])
            cinder.post(f"{path}/action", json={"delete": {"delete-volumes": True}})
        else:
            if self._kind == "volumes":
                self._detach(id, status)
            cinder.post(f"{path}/action", json={"os-force_delete": {}})

    def _detach(self, volume_id: str, status: str) -> None:
        """The servers are gone; what Cinder says of a volume that was cut off from them may say otherwise."""
        if status not in ("available", "error"):
            body = {"os-reset_status": {"status": "error", "attach_status": "detached"}}
            self._tenant.administrator.post(f"/volumes/{volume_id}/action", json=body)
