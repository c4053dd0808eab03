"""What the lab's own tests put into Nova and Cinder: a filter that says what it sees, and a volume extension."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cinder.api import extensions

KEYS = ("HTTP_X_PROJECT_ID", "HTTP_X_ROLES", "HTTP_X_IDENTITY_STATUS")


def echo(_global: Any, **options: str) -> Callable[[Any], Any]:
    """A paste filter factory: `.../probe` gets the filter's options and the caller, everything else passes."""

    def around(application: Any) -> Any:
        def probe(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            if not environ["PATH_INFO"].endswith("/probe"):
                return application(environ, start_response)
            seen = {"options": options, **{key: environ.get(key) for key in KEYS}}
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(seen).encode()]

        return probe

    return around


class Probed(extensions.ExtensionDescriptor):  # type: ignore[misc]
    """An extension that is only listed."""

    name = "Probed"
    alias = "lab-probed"
    updated = "2025-01-01T00:00:00+00:00"


def volume_extensions(manager: Any) -> None:
    """What `osapi_volume_extension` may name: it loads what it likes into the extension manager."""
    Probed(manager)
