"""A process that has everything loaded and forks a fresh service for each play, so that a play costs no start-up.

It reads one JSON order a line and answers with one JSON line. The forked services are real processes with threads,
files and a database of their own; only their birth is cheaper.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from falcon.testing import TestClient

from stillframe import main
from stillframe.drivers.call import Call
from stillframe.settings import Settings, load
from tests.crash.points import BROKEN, Points, struck_drivers
from tests.crash.world import World, instance_of, make

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
    # The client tells WSGI from ASGI by the signature, which a chain of middleware does not show.
    client = TestClient(
        lambda environ, start_response: service.wsgi(environ, start_response),  # noqa: PLW0108
        headers={"Host": "localhost"},
    )
    reply = ask(client, instance_of(root).id, order["request"])
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
    main.build_drivers(settings).compute.start(_CALL, instance_of(root).id)
    return {}


def halt(root: Path, _order: dict[str, Any]) -> dict[str, Any]:
    """End the instance's process, whatever it is doing."""
    settings = settings_of(root)
    main.build_drivers(settings).compute.stop(_CALL, instance_of(root).id, 0)
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


Plays = Mapping[str, Callable[[Path, dict[str, Any]], dict[str, Any]]]


def serve(plays: Plays, warm_up: Callable[[], None]) -> None:
    """Carry orders out, each in a process of its own, until there are no more."""
    logging.disable(logging.CRITICAL)
    warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        answer = Path(order["root"]) / "answer.json"
        answer.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _act(plays, order, answer)
        _pid, status = os.waitpid(child, 0)
        outcome = json.loads(answer.read_text()) if answer.exists() else {}
        sys.stdout.write(json.dumps({"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, **outcome}) + "\n")
        sys.stdout.flush()


def _act(plays: Plays, order: dict[str, Any], answer: Path) -> None:
    try:
        outcome = plays[order["do"]](Path(order["root"]), order)
    except Exception:  # noqa: BLE001  # whatever it is, the test that gave the order tells it
        outcome = {"trouble": traceback.format_exc()}
    answer.write_text(json.dumps(outcome))
    os._exit(0)


if __name__ == "__main__":
    serve(_PLAYS, _warm_up)
