"""How instances are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from stillframe.cli.client import Document

_VOLUMES: Final = "os-extended-volumes:volumes_attached"


def view(server: Document) -> dict[str, Any]:
    """What is known about an instance here, out of what Nova's clients expect."""
    return {
        "id": server["id"],
        "name": server["name"],
        "status": server["status"],
        "project_id": server["tenant_id"],
        "volumes": [volume["id"] for volume in server.get(_VOLUMES, ())],
    }
