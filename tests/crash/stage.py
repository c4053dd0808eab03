"""A fork server whose services live for one play each: for one request, or to put in order what another one left."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from falcon.testing import TestClient

from stillframe import main
from stillframe.drivers.call import Call
from stillframe.drivers.registry import open_drivers
from stillframe.settings import Settings, load
from tests.crash.points import BROKEN, Points, struck_drivers
from tests.crash.world import World, instance_of, make
from tests.harness.client import client_of
from tests.harness.forks import apart, serve

_PATIENCE = 60.0


def settings_of(root: Path) -> Settings:
    """Settings of a world: quick to give up, quick to stop a guest."""
    return load(
        overrides=[
            (None, "state_dir", str(root / "state")),
            (None, "auth_strategy", "noauth"),
            ("database", "sqlite_synchronous", "NORMAL"),
            ("drivers", "first_wait", 0.01),
            ("drivers", "longest_wait", 0.05),
            ("drivers", "graceful_stop_seconds", 0.05),
        ]
    )


def play(root: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Start a service, send it one request, and wait for the end of what that began."""
    settings = settings_of(root)
    points = Points(None, order["strike"])
    service = main.build(settings, drivers=struck_drivers(settings, points))
    service.start()
    points.watch(service.database.writer)
    points.seen.clear()
    points.at = order["at"]
    reply = ask(client_of(service.wsgi), instance_of(root).id, order["request"])
    settle(service)
    outcome = {"seen": list(points.seen), "status": reply.status_code, "reply": reply.text}
    points.at = None
    service.stop()
    return outcome


def recover(root: Path, _order: dict[str, Any]) -> dict[str, Any]:
    """Start a service on what is left, wait until it has put everything in order, and describe the world."""
    settings = settings_of(root)
    service = main.build(settings, drivers=struck_drivers(settings, Points(None)))
    service.start()
    settle(service)
    described = World(root, service).describe()
    service.stop()
    return described


def ask(client: TestClient, instance_id: str, request: str) -> Any:
    """Send one request of the API, in the contract's own words."""
    action = f"/compute/v2.1/demo/servers/{instance_id}/action"
    if request == "create":
        return client.simulate_post(action, json={"vm-snapshot": {"name": "kept", "description": ""}})
    listed = client.simulate_get("/volume/v3/demo/instance-snapshots").json["instance_snapshots"]
    snapshot_id = listed[0]["id"]
    if request == "delete":
        return client.simulate_delete(f"/volume/v3/demo/instance-snapshots/{snapshot_id}")
    body: dict[str, Any] = {"instance_snapshot_id": snapshot_id, "force": True}
    if request in ("retry", "rollback"):
        body[request] = True
    return client.simulate_post(action, json={"vm-restore": body})


def settle(service: main.Service) -> None:
    """Wait until no operation is open, no book is left and no instance is reserved."""
    until = time.monotonic() + _PATIENCE
    while World.busy(service):
        if time.monotonic() > until:
            raise TimeoutError("the operation did not come to its end")
        time.sleep(0.005)


def prepare(root: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Play requests one after another without any strike; `break` and `mend` set what makes a restore fail."""
    for step in order["steps"]:
        mark = root / "state" / BROKEN
        if step == "damage":
            World.damage(root)
        elif step == "break":
            mark.write_text(World.second_volume(root))
        elif step == "mend":
            mark.unlink()
        else:
            outcome = play(root, {"strike": "kill", "at": None, "request": step})
            if outcome["status"] >= 300:
                raise RuntimeError(f"{step}: {outcome}")
    return {}


def boot(root: Path, _order: dict[str, Any]) -> dict[str, Any]:
    """Start the instance."""
    settings = settings_of(root)
    open_drivers(settings).compute.start(_CALL, instance_of(root).id)
    return {}


def halt(root: Path, _order: dict[str, Any]) -> dict[str, Any]:
    """End the instance's process, whatever it is doing."""
    settings = settings_of(root)
    open_drivers(settings).compute.stop(_CALL, instance_of(root).id, 0)
    return {}


_CALL = Call("the test", "the test", lambda: None, lambda _done, _total: None)

_PLAYS = {
    "play": play,
    "recover": recover,
    "prepare": prepare,
    "boot": boot,
    "halt": halt,
}


def _warm_up() -> None:
    """Load and compile everything once, before the first fork; no thread is started by that."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, qemu=False)
        settings = settings_of(root)
        service = main.build(settings, drivers=struck_drivers(settings, Points(None)))
        service.database.close()


if __name__ == "__main__":
    serve({name: apart(play) for name, play in _PLAYS.items()}, _warm_up)
