"""What a cloud offers: the servers of Nova and the volumes of Cinder."""

from __future__ import annotations

from collections.abc import Sequence

from stillframe.domain.errors import InvalidInput
from stillframe.domain.instance import CinderSource
from stillframe.drivers.openstack import options
from stillframe.drivers.platform import Offer, Platform
from stillframe.settings import Settings


class OpenStackPlatform(Platform):
    """One cloud, which says itself what each user sees of it."""

    compute = ("nova",)
    storage = ("cinder",)
    serves = (CinderSource,)
    groups = (options.GROUP,)

    def open(self, settings: Settings, beside: Sequence[Offer]) -> Offer:  # noqa: ARG002 -- it stands alone
        """See `Platform`."""
        from stillframe.drivers.openstack import cloud
        from stillframe.drivers.openstack.backends import Backends
        from stillframe.drivers.openstack.cinder import CinderStorage
        from stillframe.drivers.openstack.leftovers import CloudLeftovers, HelpingImages
        from stillframe.drivers.openstack.login import CloudProblems
        from stillframe.drivers.openstack.nova import NovaCompute
        from stillframe.drivers.openstack.pausing import Pausing
        from stillframe.drivers.openstack.reverting import Reverter, Times
        from stillframe.drivers.openstack.visibility import CloudVisibility
        from stillframe.drivers.openstack.volumes import Looking
        from stillframe.drivers.openstack.waiting import Waiting

        if settings.api.auth_strategy != "keystone":
            # Callers without a token of the cloud's would see and do what the service's own user may: everything.
            raise InvalidInput("the drivers nova and cinder need auth_strategy = keystone", "auth_strategy")
        chosen, waiting = options.read(settings), Waiting()
        connected = cloud.connect(settings.conf, cloud.Endpoints(chosen.interface, chosen.region_name))
        looking, backends = Looking(connected), Backends(connected, chosen.reverting_backends)
        times = Times(chosen.revert_timeout, chosen.late_requests, chosen.volume_service_interval)
        reverter = Reverter(connected, looking, waiting, backends, times, reimage=chosen.reimage)
        storage = CinderStorage(connected, looking, waiting, reverter, timeout=chosen.snapshot_timeout)
        pausing = Pausing(connected, waiting, seconds=chosen.pause_seconds, resolution=chosen.updated_resolution)
        compute = NovaCompute(
            connected, waiting, pausing, pauses=chosen.quiesce == "pause", timeout=chosen.server_timeout
        )
        kinds = [kind for kind in cloud.MICROVERSIONS if chosen.reimage or kind != "image"]
        return Offer(
            compute,
            storage,
            (
                CloudVisibility(connected),
                CloudLeftovers(
                    pausing, HelpingImages(connected) if chosen.reimage else None, chosen.paused_servers_interval
                ),
                CloudProblems(connected, kinds, reverter),
            ),
        )
