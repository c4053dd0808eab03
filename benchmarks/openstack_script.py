"""What a user would write with openstacksdk, all volumes at a time; it runs in the clients' virtualenv.

`python openstack_script.py USER ADMINISTRATOR SECONDS` (names of clouds, and how often is looked) takes lines with a
JSON list each, the name of a method of `Script` and its argument, and answers each with what that returns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from openstack.block_storage.v3.snapshot import Snapshot

import openstack

_AT_A_TIME: Final = 16
_PATIENCE_SECONDS: Final = 120
# Reverting needs 3.40; the service uses the same one.
_MICROVERSION: Final = "3.68"


class Script:
    """`user` owns the volumes; `administrator` may reset statuses, and has the safety snapshots in a project apart."""

    def __init__(self, user: str, administrator: str, poll_seconds: float) -> None:
        self._user = _volumes_of(user)
        self._administrator = _volumes_of(administrator)
        self._poll = poll_seconds

    def snapshot(self, volume_ids: list[str]) -> dict[str, str]:
        """Snapshots by volume, all available."""
        return self._cut(self._user, volume_ids)

    def restore(self, snapshots: Mapping[str, str]) -> None:
        """Every volume back to its newest snapshot."""
        _all(lambda pair: self._revert(*pair), snapshots.items())

    def restore_safely(self, snapshots: Mapping[str, str]) -> None:
        """The same, with snapshots of all volumes as they are, made before and deleted after."""
        safety = self._cut(self._administrator, list(snapshots))
        self.restore(snapshots)
        self._drop(self._administrator, safety.values())

    def delete(self, snapshots: Mapping[str, str]) -> None:
        """Until they are gone."""
        self._drop(self._user, snapshots.values())

    def _cut(self, api: Any, volume_ids: list[str]) -> dict[str, str]:
        def cut(volume_id: str) -> str:
            made = api.create_snapshot(volume_id=volume_id, name="bench", is_forced=True)
            self._wait(api, made)
            return str(made.id)

        return dict(zip(volume_ids, _all(cut, volume_ids), strict=True))

    def _revert(self, volume_id: str, snapshot_id: str) -> None:
        self._administrator.reset_volume_status(volume_id, status="available")
        self._user.revert_volume_to_snapshot(volume_id, snapshot_id)
        self._wait(self._user, self._user.get_volume(volume_id))
        self._administrator.reset_volume_status(volume_id, status="in-use")

    def _drop(self, api: Any, snapshot_ids: Iterable[str]) -> None:
        def drop(snapshot_id: str) -> None:
            api.delete_snapshot(snapshot_id)
            # Not what `get_snapshot` finds: it may be gone by then.
            api.wait_for_delete(Snapshot.new(id=snapshot_id), interval=self._poll, wait=_PATIENCE_SECONDS)

        _all(drop, snapshot_ids)

    def _wait(self, api: Any, one: Any) -> None:
        api.wait_for_status(one, "available", ["error"], interval=self._poll, wait=_PATIENCE_SECONDS)


def _volumes_of(cloud: str) -> Any:
    api = openstack.connect(cloud=cloud).block_storage
    api.default_microversion = _MICROVERSION
    return api


def _all(do: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(do, items))


def main(user: str, administrator: str, poll_seconds: str) -> None:
    script = Script(user, administrator, float(poll_seconds))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(getattr(script, name)(*arguments)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
