"""Guests that an interrupted step may have left held still."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stillframe.drivers.leftovers import DriverLeftovers, FoundDraft, Loss
from stillframe.drivers.qemu.declaration import Declarations
from stillframe.drivers.qemu.holding import Holding


class QemuLeftovers(DriverLeftovers):
    """See `DriverLeftovers`: it makes no copies."""

    def __init__(self, declarations: Declarations, holding: Holding) -> None:
        self._declarations = declarations
        self._holding = holding

    def quiesced(self) -> Sequence[str]:
        """See `DriverLeftovers`; who is not declared any more cannot be let run by us, and is left out."""
        return sorted(set(self._holding.abandoned()) & {declaration.id for declaration in self._declarations.all()})

    def let_run(self, instance_id: str, require_free: Callable[[], None]) -> None:
        """See `DriverLeftovers`."""
        declaration = self._declarations.instance(instance_id)
        require_free()
        self._holding.release_abandoned(declaration)

    def drafts(self) -> Sequence[FoundDraft]:
        """See `DriverLeftovers`."""
        return ()

    def remove(self, draft: FoundDraft) -> None:
        """See `DriverLeftovers`."""

    def losses(self) -> Sequence[Loss]:
        """See `DriverLeftovers`."""
        return ()

    def orphans(self) -> Sequence[str]:
        """See `DriverLeftovers`."""
        return ()
