"""A volume extension that the lab's own tests put into Cinder."""

from __future__ import annotations

from typing import Any

from cinder.api import extensions


class Probed(extensions.ExtensionDescriptor):  # type: ignore[misc]
    """An extension that is only listed."""

    name = "Probed"
    alias = "lab-probed"
    updated = "2025-01-01T00:00:00+00:00"


def volume_extensions(manager: Any) -> None:
    """What `osapi_volume_extension` may name: it loads what it likes into the extension manager."""
    Probed(manager)
