"""Nova's compute service with its fake driver, made to remember its guests: a program run by the lab's Python.

The stock fake driver forgets everything at its end, and names its node by a random identifier, which the compute
manager takes for a stranger's at the next start.
"""

from __future__ import annotations

import fcntl
import functools
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nova.cmd import compute  # first of all, for it lets eventlet patch the interpreter
from nova.compute import power_state
from nova.conf import CONF
from nova.virt import fake
from nova.virt.node import get_local_node_uuid

_CHANGES = (
    *("spawn", "destroy", "power_on", "power_off", "attach_volume", "detach_volume", "swap_volume", "reboot"),
    *("pause", "unpause"),
)


class PersistentDriver(fake.FakeDriver):  # type: ignore[misc]
    """Guests and their volumes, kept in the file `guests.json` of Nova's state folder."""

    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        super().__init__(virtapi, read_only)
        self._file = Path(CONF.state_path) / "guests.json"
        # Of each guest, the volumes that it was last started with.
        self._disks: dict[str, list[str]] = {}
        if self._file.exists():
            kept = json.loads(self._file.read_text())
            self.instances = {
                key: fake.FakeInstance(one["name"], one["state"], key) for key, one in kept["guests"].items()
            }
            self._mounts, self._disks = kept["mounts"], kept["disks"]
        for name in _CHANGES:
            setattr(self, name, self._keeping(getattr(self, name)))

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        status: dict[str, Any] = super().get_available_resource(nodename)
        return {**status, "uuid": get_local_node_uuid()} if status else status

    def get_nodenames_by_uuid(self, refresh: bool = False) -> dict[str, str]:
        return {get_local_node_uuid(): name for name in self.get_available_nodes(refresh)}

    def pause(self, instance: Any) -> None:
        if (self._file.parent / "cannot_pause").exists():
            raise NotImplementedError
        self.instances[instance.uuid].state = power_state.PAUSED
        self._write()
        # What the guest had begun to write is written when this returns, as with a real one.
        with (self._file.parents[1] / "rawfile" / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)

    def unpause(self, instance: Any) -> None:
        self.instances[instance.uuid].state = power_state.RUNNING

    def _keeping(self, change: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(change)
        def kept(*args: Any, **kwargs: Any) -> Any:
            result = change(*args, **kwargs)
            instance = next(one for one in (*args, *kwargs.values()) if hasattr(one, "uuid"))
            if (devices := kwargs.get("block_device_info")) is not None:
                mapping = devices.get("block_device_mapping") or []
                self._disks[instance.uuid] = [one["connection_info"].get("serial") for one in mapping]
            self._write()
            return result

        return kept

    def _write(self) -> None:
        guests = {key: {"name": one.name, "state": one.state} for key, one in self.instances.items()}
        disks = {key: self._disks.get(key, []) for key in guests}
        unfinished = self._file.with_suffix(".part")
        unfinished.write_text(json.dumps({"guests": guests, "mounts": self._mounts, "disks": disks}, default=str))
        unfinished.replace(self._file)


def main() -> None:
    # Nova loads drivers from its own package only.
    module = types.ModuleType("nova.virt.lab")
    module.PersistentDriver = PersistentDriver  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    compute.main()


if __name__ == "__main__":
    main()
