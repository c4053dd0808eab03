"""Three ways to an instance snapshot in a cloud and back: the service, a script with openstacksdk, the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from tests.lab.openstack.installation import cache_folder, install, locked
from tests.lab.openstack.tenant import checked
from tests.openstack.service import User

_PINS: Final = Path(__file__).with_name("openstack_clients.txt")
_SCRIPT: Final = Path(__file__).with_name("openstack_script.py")
# All look as often as this, except for commands, which take longer each.
POLL_SECONDS: Final = 0.1
USER: Final = "alpha-member"
ADMINISTRATOR: Final = "stillframe"

Server = tuple[str, Sequence[str]]


class Way(Protocol):
    """What `snapshot` returns is what the others take; `restore` is safe where the way does not say otherwise."""

    def snapshot(self, server: Server) -> Any: ...

    def restore(self, server: Server, taken: Any) -> None: ...

    def delete(self, taken: Any) -> None: ...


class Service:
    """The API of the service, for a server that is off."""

    def __init__(self, user: User) -> None:
        self._user = user

    def snapshot(self, server: Server) -> str:
        body = {"vm-snapshot": {"name": "bench", "description": "", "volumes": []}}
        snapshot_id = str(checked(self._user.act(server[0], body), 200)["instance_snapshot"]["id"])
        self._wait(snapshot_id)
        return snapshot_id

    def restore(self, server: Server, taken: str) -> None:
        body = {"vm-restore": {"instance_snapshot_id": taken, "force": False}}
        checked(self._user.act(server[0], body), 202)
        self._wait(taken)

    def delete(self, taken: str) -> None:
        self._user.delete(taken)

    def _wait(self, snapshot_id: str) -> None:
        while (shown := self._user.show(snapshot_id))["status"].endswith("ing"):
            time.sleep(POLL_SECONDS)
        assert shown["status"] == "available", shown


class Script:
    """The script, in a process that has all imported and is logged in."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def snapshot(self, server: Server) -> Any:
        return self.do("snapshot", server[1])

    def restore(self, server: Server, taken: Any) -> None:  # noqa: ARG002 -- as every way
        self.do("restore_safely", taken)

    def delete(self, taken: Any) -> None:
        self.do("delete", taken)

    def do(self, name: str, argument: Any) -> Any:
        """What the script's function returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, argument]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the script has ended in {name}; above is why"
        return json.loads(answer)


class UnsafeScript(Script):
    """The script without safety snapshots: where a revert fails, what the volumes held is lost."""

    def restore(self, server: Server, taken: Any) -> None:  # noqa: ARG002 -- as every way
        self.do("restore", taken)


class Commands:
    """One command of python-openstackclient after another."""

    def __init__(self, environment: Mapping[str, str], program: Path) -> None:
        self._environment = dict(environment)
        self._program = str(program)

    def snapshot(self, server: Server) -> dict[str, str]:
        return self._cut(USER, server[1])

    def restore(self, server: Server, taken: Mapping[str, str]) -> None:
        safety = self._cut(ADMINISTRATOR, server[1])
        for volume_id, snapshot_id in taken.items():
            self._run(ADMINISTRATOR, "volume", "set", "--state", "available", volume_id)
            self._run(USER, "volume", "revert", snapshot_id)
            self._wait(USER, "volume", volume_id)
            self._run(ADMINISTRATOR, "volume", "set", "--state", "in-use", volume_id)
        self._drop(ADMINISTRATOR, safety)

    def delete(self, taken: Mapping[str, str]) -> None:
        self._drop(USER, taken)

    def _cut(self, cloud: str, volume_ids: Sequence[str]) -> dict[str, str]:
        create = ("volume", "snapshot", "create", "--force", "--format", "value", "--column", "id", "--volume")
        made = {volume_id: self._run(cloud, *create, volume_id, "bench") for volume_id in volume_ids}
        for snapshot_id in made.values():
            self._wait(cloud, "volume snapshot", snapshot_id)
        return made

    def _drop(self, cloud: str, snapshots: Mapping[str, str]) -> None:
        for snapshot_id in snapshots.values():
            self._run(cloud, "volume", "snapshot", "delete", snapshot_id)
        while set(snapshots.values()) & set(self._run(cloud, *_LIST).split()):
            pass

    def _wait(self, cloud: str, kind: str, identity: str) -> None:
        show = (*kind.split(), "show", "--format", "value", "--column", "status", identity)
        while (status := self._run(cloud, *show)) != "available":
            assert "error" not in status, f"{kind} {identity} is {status}"

    def _run(self, cloud: str, *arguments: str) -> str:
        command = (self._program, "--os-cloud", cloud, *arguments)
        done = subprocess.run(command, env=self._environment, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()


_LIST: Final = ("volume", "snapshot", "list", "--format", "value", "--column", "ID")


@contextmanager
def other_ways(clouds: Mapping[str, object], folder: Path) -> Iterator[tuple[Script, UnsafeScript, Commands]]:
    """All but the service; `clouds` is the content of a clouds.yaml, and `folder` is for it."""
    venv = _installed()
    config = folder / "clouds.yaml"
    config.touch(mode=0o600)
    config.write_text(json.dumps(clouds))  # JSON is YAML
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "OS_CLIENT_CONFIG_FILE": str(config),
        # The first that reverts.
        "OS_VOLUME_API_VERSION": "3.40",
    }
    command = [str(venv / "bin" / "python"), "-P", str(_SCRIPT), USER, ADMINISTRATOR, str(POLL_SECONDS)]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield Script(process), UnsafeScript(process), Commands(environment, venv / "bin" / "openstack")
        finally:
            process.kill()


def _installed() -> Path:
    """The clients' virtualenv, beside those of the lab and made anew when the pins change."""
    venv = cache_folder() / "clients"
    with locked(cache_folder() / "lock-clients"):
        done = venv / "pins"
        if not done.exists() or done.read_bytes() != _PINS.read_bytes():
            shutil.rmtree(venv, ignore_errors=True)
            install(venv, _PINS)
            done.write_bytes(_PINS.read_bytes())
    return venv
