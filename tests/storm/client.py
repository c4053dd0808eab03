"""A client that has every request carried out once, whatever becomes of the APIs it is sent to."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

import requests

from tests.storm.world import Machine

#: Seconds; a busy machine may take its time, and only what never comes is waited for so long.
PATIENCE: Final = 600.0
# What an API that was killed had sent to the database may still come through.
_AFTERMATH: Final = 0.5
_FINAL: Final = frozenset({"available", "error", "restore-error", "rollback-error", "error-deleting"})


class Failed(AssertionError):  # it is an assertion
    """Something was answered that should not have been."""


class Client:
    """The client of one instance; nobody else changes its snapshots."""

    def __init__(self, machine: Machine, urls: Callable[[], list[str]], rng: random.Random) -> None:
        self._machine = machine
        self._urls = urls
        self._rng = rng
        self._session = requests.Session()
        self._ids: dict[str, str] = {}
        self.repeated = 0

    def create(self, name: str) -> None:
        action = {"vm-snapshot": {"name": name, "description": ""}}
        self._once(lambda: self._send("POST", self._action, action), lambda: name in self._found())
        self._ids[name] = self._found()[name]["id"]
        self.wait(name)

    def restore(self, name: str, **how: bool) -> None:
        """Restore, retry or roll back."""
        self._ask_for(name, lambda: self._send("POST", self._action, {"vm-restore": self._named(name, how)}))
        self.wait(name)

    def delete(self, name: str) -> None:
        self._ask_for(name, lambda: self._send("DELETE", self._path(name)))
        self.wait(name)

    def may_be_held(self) -> bool:
        """Whether the service tells that the guest may be held still, wherever it tells of the instance."""
        return any(one["guest_may_be_held"] is not False for one in self._found().values())

    def wait(self, name: str) -> dict[str, Any] | None:
        """The snapshot when nothing is done with it any more; None if it is gone."""
        until, pause = time.monotonic() + PATIENCE, 0.2
        while True:
            shown = self._look(name)
            if shown is None or shown["status"] in _FINAL:
                return shown
            if time.monotonic() > until:
                raise Failed(f"{name} did not come to its end: {shown}")
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)

    def shown(self) -> dict[str, dict[str, Any]]:
        """The snapshots of the instance, by name."""
        return self._found()

    def _ask_for(self, name: str, send: Callable[[], requests.Response]) -> None:
        before = self._look(name)
        assert before is not None

        def accepted() -> bool:
            shown = self._look(name)
            return shown is None or bool(shown["task_uri"].split("?")[1] != before["task_uri"].split("?")[1])

        self._once(send, accepted)

    def _once(self, send: Callable[[], requests.Response], accepted: Callable[[], bool]) -> None:
        """Send a request until it is accepted; where that is not known, look before sending it again."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                reply = send()
                if reply.status_code in (200, 202):
                    return
                if reply.status_code not in (409, 503):
                    raise Failed(f"{reply.status_code}: {reply.text}")
                problem = reply.text
            except requests.RequestException as error:
                problem = str(error)
            if time.monotonic() > until:
                raise Failed(f"was never accepted: {problem}")
            self.repeated += 1
            time.sleep(_AFTERMATH)
            if accepted():
                return

    def _look(self, name: str) -> dict[str, Any] | None:
        reply = self._get(self._path(name))
        return None if reply.status_code == 404 else reply.json()["instance_snapshot"]

    def _found(self) -> dict[str, dict[str, Any]]:
        reply = self._get(f"/volume/v3/{self._machine.project}/instance-snapshots").json()
        mine = [one for one in reply["instance_snapshots"] if one["instance_id"] == self._machine.id]
        if len({one["name"] for one in mine}) < len(mine):
            raise Failed(f"a snapshot was made twice: {mine}")
        return {one["name"]: one for one in mine}

    def _get(self, path: str) -> requests.Response:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                reply = self._send("GET", path)
                if reply.status_code in (200, 404):
                    return reply
                problem = f"{reply.status_code}: {reply.text}"
                if reply.status_code != 503:
                    raise Failed(problem)
            except requests.RequestException as error:
                problem = str(error)
            if time.monotonic() > until:
                raise Failed(f"GET {path}: {problem}")
            time.sleep(0.3)

    def _send(self, method: str, path: str, body: Any = None) -> requests.Response:
        # Longer than any API is ever stopped: what was given up might be carried out after all.
        return self._session.request(method, self._rng.choice(self._urls()) + path, json=body, timeout=PATIENCE)

    @property
    def _action(self) -> str:
        return f"/compute/v2.1/{self._machine.project}/servers/{self._machine.id}/action"

    def _path(self, name: str) -> str:
        return f"/volume/v3/{self._machine.project}/instance-snapshots/{self._ids[name]}"

    def _named(self, name: str, how: dict[str, bool]) -> dict[str, Any]:
        return {"instance_snapshot_id": self._ids[name], "force": self._machine.guest is not None, **how}
