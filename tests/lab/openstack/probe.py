"""A filter that the lab's own tests put into Nova and Cinder: it says what it sees.

It imports neither: Nova and Cinder have options of the same names, and one process can not load both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

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
