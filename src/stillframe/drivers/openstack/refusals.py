"""What a service of the cloud says when it refuses, in its own words, and where that stands in our tree of errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, Final

from keystoneauth1 import exceptions

from stillframe.domain.errors import (
    BackendError,
    Conflict,
    Forbidden,
    NotFound,
    Refused,
    StillframeError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from stillframe.foreign import replies

_SECRET: Final = re.compile(rb'"(?:password|secret)": ?("(?:[^"\\\\]|\\\\.)*")')
# Of what is longer, the rest is left unread.
_MOST: Final = 1 << 14
_MOST_PARTS: Final = 20
# By which services, the libraries below them and the proxies before them tell why: `{"overLimit": {"message": ...}}`,
# `{"error": {"message": ...}}`, `{"errors": [{"title": ..., "detail": ...}]}`, `{"message": ...}`.
_TELLING: Final = ("message", "detail", "title", "description", "faultstring")


_Translations = tuple[tuple[tuple[type[Exception], ...], type[StillframeError], str], ...]

_DENIED_TO_USER: Final[_Translations] = (
    ((exceptions.Unauthorized,), Unauthorized, ""),
    ((exceptions.Forbidden,), Forbidden, ""),
)
_DENIED_TO_US: Final[_Translations] = (
    (
        (exceptions.Unauthorized, exceptions.Forbidden),
        BackendError,
        "The roles that the service's user needs are listed in the documentation.",
    ),
)
_ANSWERS: Final[_Translations] = (
    ((exceptions.NotFound,), NotFound, ""),
    ((exceptions.Conflict,), Conflict, ""),
    (
        (exceptions.RequestEntityTooLarge,),
        TooLarge,
        "Ask for a larger quota, or delete what is not needed any more.",
    ),
    ((exceptions.BadRequest,), Refused, ""),
    (
        (
            exceptions.HttpServerError,
            exceptions.TooManyRequests,
            exceptions.RetriableConnectionFailure,
            exceptions.ConnectionError,
            exceptions.DiscoveryFailure,
            exceptions.InvalidResponse,
        ),
        Unavailable,
        "",
    ),
)


def translate(error: exceptions.ClientException, service: str, *, for_user: bool) -> StillframeError:
    """An error of the library's in words of the service that refused, without secrets, in our tree."""
    said = replies.plain(_said(error), _secrets(error))
    denials = _DENIED_TO_USER if for_user else _DENIED_TO_US
    for kinds, translation, advice in (*denials, *_ANSWERS):
        if isinstance(error, kinds):
            return translation(" ".join(filter(None, (f"{service}: {said}", advice))))
    return BackendError(f"{service}: {said}")


def _secrets(error: exceptions.ClientException) -> list[str]:
    """What was sent that must not come back in a message."""
    request = getattr(getattr(error, "response", None), "request", None)
    if request is None:
        return []
    tokens = [request.headers.get(key) for key in ("X-Auth-Token", "X-Subject-Token", "X-Service-Token")]
    body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
    words = [json.loads(found) for found in _SECRET.findall(body)]
    return [one if isinstance(one, str) else one.decode(errors="replace") for one in (*tokens, *words) if one]


def _said(error: exceptions.ClientException) -> str:
    """The words of the answer, where there are some; the library knows some forms only, and says nothing of others."""
    response = getattr(error, "response", None)
    content = getattr(response, "content", None)
    words = _words(content[:_MOST]) if isinstance(content, bytes) else ""
    if words and response is not None:
        return f"{words} (HTTP {response.status_code})"
    return str(getattr(error, "message", None) or error)


def _words(content: bytes) -> str:
    text = content.decode("utf-8", "replace").strip()
    if text[:1] in ("{", "["):
        try:
            found = list(_told(replies.document(content)))
        except replies.Malformed:
            found = []
        return ": ".join(dict.fromkeys(found[:_MOST_PARTS])) or text
    if text[:1] == "<":
        page = _Page()
        page.feed(text)
        return " ".join(" ".join(page.words).split())
    return text


def _told(document: Any, depth: int = 3) -> Iterator[str]:
    if isinstance(document, list):
        for one in document[:_MOST_PARTS]:
            yield from _told(one, depth - 1) if depth else ()
    elif isinstance(document, dict):
        told = [document[key] for key in _TELLING if isinstance(document.get(key), str) and document[key].strip()]
        if told:
            yield told[0].strip()
            return
        for key, value in list(document.items())[:_MOST_PARTS]:
            if isinstance(value, str) and key.lower() in ("error", "fault", "reason"):
                yield value
            elif depth:
                yield from _told(value, depth - 1)


class _Page(HTMLParser):
    """The words of a page, as a proxy or a web server makes one."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  # of the library
        """See `HTMLParser`."""
        self._unseen += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        """See `HTMLParser`."""
        self._unseen -= self._unseen > 0 and tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        """See `HTMLParser`."""
        if not self._unseen:
            self.words.append(data)
