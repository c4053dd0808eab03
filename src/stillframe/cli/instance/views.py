"""How instances are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from stillframe.cli.client import Document

#: What is being done with it at present, or null.
TASK: Final = "OS-EXT-STS:task_state"
#: What is shown of an instance, and what a list of them shows.
KEYS: Final = ("id", "name", "status", "task_state", "project_id", "volumes")
LISTED: Final = ("id", "name", "status")
#: What to do where the service does not work in the folder that a command's own settings name.
OTHER_SETTINGS: Final = "give this command the service's settings: --config-file FILE, or STILLFRAME_CONFIG"
_VOLUMES: Final = "os-extended-volumes:volumes_attached"


def view(server: Document) -> dict[str, Any]:
    """What is known about an instance here, out of what Nova's clients expect."""
    return {
        "id": server["id"],
        "name": server["name"],
        "status": server["status"],
        "task_state": server.get(TASK),
        "project_id": server["tenant_id"],
        "volumes": [volume["id"] for volume in server.get(_VOLUMES, ())],
    }
