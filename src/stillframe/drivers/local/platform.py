"""What this machine offers: QEMU processes and image files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stillframe.domain.instance import FileSource
from stillframe.drivers.finding import Check, Finding
from stillframe.drivers.local import options
from stillframe.drivers.platform import Drivers, Offer, Platform
from stillframe.settings import Settings


class LocalPlatform(Platform):
    """Instances that are declared in files."""

    compute = ("local",)
    storage = ("local",)
    serves = (FileSource,)
    standard = True
    groups = (options.GROUP,)

    def open(self, settings: Settings, beside: Sequence[Offer]) -> Offer:  # noqa: ARG002 -- it stands alone
        """See `Platform`."""
        from stillframe.drivers.image_files.files import Files
        from stillframe.drivers.local.compute import LocalCompute
        from stillframe.drivers.local.declaration import Declarations
        from stillframe.drivers.local.guard import Guard
        from stillframe.drivers.local.images import Images
        from stillframe.drivers.local.leftovers import LocalLeftovers
        from stillframe.drivers.local.qemu import Qemu
        from stillframe.drivers.local.storage import LocalStorage
        from stillframe.drivers.local.takeover import TakeOver

        chosen = options.read(settings)
        files, images, qemu = Files(), Images(), Qemu()
        compute = LocalCompute(chosen.instances, chosen.state, files, qemu, guard=Guard())
        declarations = Declarations(chosen.instances)
        return Offer(
            compute,
            LocalStorage(declarations, compute, qemu, chosen.state, files, images),
            (
                LocalLeftovers(chosen.instances, chosen.state, files, compute.holding),
                TakeOver(files, chosen.state),
                declarations,
                qemu,
            ),
        )

    def findings(self, settings: Settings, drivers: Drivers | None) -> Iterable[Finding | Check]:  # noqa: ARG002 -- as above
        """See `Platform`: the declared instances, their disks and sockets."""
        from stillframe.drivers.local import health

        return health.look(settings)
