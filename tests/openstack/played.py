"""The whole service over the cloud that is played: real flows, real store, real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from stillframe import main
from stillframe.drivers.call import Call
from stillframe.drivers.registry import open_drivers
from stillframe.drivers.visibility import Visibility
from stillframe.settings import load
from tests.harness.faults import Clock, Faults, wait_until
from tests.harness.world import World
from tests.lab.openstack.services import Option, ini
from tests.lab.scripted.cloud import ScriptedCloud, scripted_cloud
from tests.lab.scripted.things import Server

_SOON: Final[dict[str, Option]] = {"timeout": 20, "late_requests": 0.5}


class PlayedWorld(World):
    """A service and one server that runs, with two volumes; see `World` for requests."""

    def __init__(self, folder: Path, cloud: ScriptedCloud, **options: Option) -> None:
        self.faults, self.clock = Faults(), Clock()
        self.cloud = cloud
        self._folder, self._options = folder, options
        self.server = cloud.add_server()
        self.instance: Any = self.server
        self.service = self._build()
        self.service.start()

    def _build(self) -> main.Service:
        config = self._folder / "cloud.conf"
        login: dict[str, Option] = {
            "auth_type": "v3password",
            "auth_url": f"{self.cloud.url}/identity/v3",
            "username": "the-service",
            "password": "secret",
            "user_domain_id": "default",
            "project_name": "service",
            "project_domain_id": "default",
        }
        drivers: dict[str, Option] = {
            "compute": "nova",
            "storage": "cinder",
            "first_wait": 0.01,
            "longest_wait": 0.05,
            "attempts": 3,
            "graceful_stop_seconds": 1,
        }
        general: dict[str, Option] = {"state_dir": str(self._folder), "auth_strategy": "keystone"}
        config.write_text(
            ini({"DEFAULT": general, "drivers": drivers, "openstack": {**_SOON, **login, **self._options}})
        )
        settings = load([str(config)])
        self.drivers = open_drivers(settings)
        unseen = tuple(one for one in self.drivers.abilities if not isinstance(one, Visibility))
        # Callers come without a Keystone, so that the platform is asked as the service.
        open_to_all = replace(settings, api=replace(settings.api, auth_strategy="noauth"))
        return main.build(open_to_all, drivers=replace(self.drivers, abilities=unseen), now=self.clock)

    def fill(self, text: str, server: Server | None = None) -> None:
        """Let the guest write the same to all its volumes."""
        for volume_id in (server or self.server).volumes:
            self.cloud.volumes[volume_id].content = text

    def wait_for(self, reached: Callable[[], bool]) -> None:
        wait_until(reached, "it did not come")

    def a_call(self) -> Call:
        return Call("operation", "request", lambda: None, lambda _done, _total: None)

    def look_anew(self) -> None:
        """As a service that has just been started, which remembers nothing of the back ends."""
        self.stop()
        self.start_anew()

    def contents(self) -> set[str]:
        return {self.cloud.volumes[one].content for one in self.server.volumes}

    def refused(self, body: object) -> tuple[int, str]:
        """The status and the words of a refusal."""
        reply = self.act(body)
        ((_key, said),) = reply.json.items()
        return reply.status_code, said.get("message", "")

    def restore_refused(self, snapshot_id: str, *, force: bool = True) -> tuple[int, str]:
        return self.refused({"vm-restore": {"instance_snapshot_id": snapshot_id, "force": force}})


@contextmanager
def playing(folder: Path, **options: Option) -> Iterator[PlayedWorld]:
    """A service over a cloud that is played, with options of [openstack]."""
    with scripted_cloud() as cloud:
        world = PlayedWorld(folder, cloud, **options)
        yield world
        world.stop()
