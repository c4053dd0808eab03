"""What a cloud user does in the lab, waited for: servers from volumes, snapshots, groups, stopping, reverting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import requests

from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import until

__all__ = ["Tenant", "checked"]

PATIENCE = 60.0


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

    def remove_everything(self) -> None:
        """Delete all that is in the project, in whatever state it is."""
        for server in checked(self.compute.get("/servers"))["servers"]:
            # Deletes are refused where an administrator has locked it.
            self.lab.api("stillframe", "compute").post(f"/servers/{server['id']}/action", json={"unlock": None})
            self.compute.delete(f"/servers/{server['id']}")
        until(lambda: not checked(self.compute.get("/servers"))["servers"], PATIENCE)
        for group_snapshot in checked(self.volume.get("/group_snapshots"))["group_snapshots"]:
            checked(self.volume.delete(f"/group_snapshots/{group_snapshot['id']}"))
        until(lambda: not checked(self.volume.get("/group_snapshots"))["group_snapshots"], PATIENCE)
        for snapshot in checked(self.volume.get("/snapshots"))["snapshots"]:
            checked(self.volume.delete(f"/snapshots/{snapshot['id']}"))
        until(lambda: not checked(self.volume.get("/snapshots"))["snapshots"], PATIENCE)
        for group in checked(self.volume.get("/groups"))["groups"]:
            checked(self.volume.post(f"/groups/{group['id']}/action", json={"delete": {"delete-volumes": True}}))
        until(lambda: not checked(self.volume.get("/groups"))["groups"], PATIENCE)
        for volume in checked(self.volume.get("/volumes"))["volumes"]:
            self.administrator.post(f"/volumes/{volume['id']}/action", json={"os-force_delete": {}})
        until(lambda: not checked(self.volume.get("/volumes"))["volumes"], PATIENCE)
