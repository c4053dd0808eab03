"""What QEMU processes on this machine offer: compute, and copying their disks while they run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stillframe.drivers.finding import Check, Finding
from stillframe.drivers.platform import Drivers, Offer, Platform
from stillframe.drivers.qemu import options
from stillframe.settings import Settings


class QemuPlatform(Platform):
    """Instances that are declared in files."""

    compute = ("qemu",)
    former = {"local": "qemu"}  # noqa: RUF012 -- declared by the base
    standard = True
    groups = (options.GROUP,)

    def open(self, settings: Settings, beside: Sequence[Offer]) -> Offer:  # noqa: ARG002 -- it stands alone
        """See `Platform`."""
        from stillframe.drivers.image_files.files import Files
        from stillframe.drivers.qemu.commands import Qemu
        from stillframe.drivers.qemu.compute import QemuCompute
        from stillframe.drivers.qemu.declaration import Declarations
        from stillframe.drivers.qemu.guard import Guard
        from stillframe.drivers.qemu.leftovers import QemuLeftovers

        chosen, qemu = options.read(settings), Qemu()
        compute = QemuCompute(chosen.instances, chosen.state, Files(), qemu, guard=Guard())
        declarations = Declarations(chosen.instances)
        return Offer(compute, None, (QemuLeftovers(declarations, compute.holding), declarations, qemu))

    def findings(self, settings: Settings, drivers: Drivers | None) -> Iterable[Finding | Check]:  # noqa: ARG002 -- as above
        """See `Platform`: the declared instances and their sockets."""
        from stillframe.drivers.qemu import health

        return health.look(settings)
