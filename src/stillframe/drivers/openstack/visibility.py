"""What a user of the cloud sees, asked with the user's own token."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stillframe.domain.instance import Instance, Volume
from stillframe.drivers.openstack import documents, servers, volumes
from stillframe.drivers.openstack.cloud import Cloud
from stillframe.drivers.visibility import Visibility


class CloudVisibility(Visibility):
    """See `stillframe.drivers.visibility.Visibility`: Nova and Cinder decide."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def list_instances(self, token: str, *, all_projects: bool) -> Sequence[Instance]:
        """See `Visibility`."""
        query = {"all_tenants": "1"} if all_projects else {}
        return servers.list_servers(self._cloud.user("compute", token), **query)

    def get_instance(self, token: str, instance_id: str) -> Instance:
        """See `Visibility`."""
        return servers.get_server(self._cloud.user("compute", token), instance_id)

    def list_volumes(self, token: str, *, all_projects: bool) -> Sequence[Volume]:
        """See `Visibility`."""
        query = {"all_tenants": "1"} if all_projects else {}
        return volumes.list_volumes(self._cloud.user(volumes.STORAGE, token), **query)

    def own_volumes(self, token: str) -> Collection[str]:
        """See `Visibility`; what Cinder answers when it is asked for no page in particular."""
        # Without details, which Cinder takes its time for.
        found = self._cloud.user(volumes.STORAGE, token).get("/volumes", documents.VOLUME_IDS)
        return {volume["id"] for volume in found}

    def get_volume(self, token: str, volume_id: str) -> Volume:
        """See `Visibility`."""
        return volumes.as_volume(volumes.get_volume(self._cloud.user(volumes.STORAGE, token), volume_id))
