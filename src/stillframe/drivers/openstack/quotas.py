"""Whether a project may have as many more snapshots as are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stillframe.domain.errors import TooLarge
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Api
from stillframe.drivers.openstack.volumes import Document


def require_room(api: Api, project_id: str, described: Sequence[Document]) -> None:
    """Raises `TooLarge` if a snapshot of each of these volumes is more than the project's quota has left.

    Their gigabytes are left to Cinder, which does not tell whether it counts those of snapshots
    (`no_snapshot_gb_quota`).
    """
    quotas = api.get(f"/os-quota-sets/{project_id}", documents.QUOTAS, usage="true")
    wanted = Counter({"snapshots": len(described)})
    wanted.update(f"snapshots_{volume['volume_type']}" for volume in described)
    for name, more in wanted.items():
        quota = quotas.get(name)
        if not isinstance(quota, dict):
            continue
        left = quota["limit"] - quota.get("in_use", 0) - quota.get("reserved", 0)
        if quota["limit"] >= 0 and left < more:
            raise TooLarge(
                f"{more} more snapshots are needed in project {project_id}, and its quota '{name}' of {quota['limit']} "
                f"has {max(0, left)} left: ask for a larger one, or delete what is not needed any more."
            )
