"""HTTP to speakers that nobody vouches for: a bound on the bytes and on the whole time of each reply.

requests and urllib3 bound the time of each read alone: a speaker that drips one byte a second holds a thread for ever.
"""

from __future__ import annotations

import io
import time
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

#: The longest reply that is read. A thousand servers of Nova's with everything on them are about 4 MB.
MOST_BYTES: Final = 32 << 20

_PIECE: Final = 1 << 16
_CONNECTIONS: Final = 32
# Of the reply as it came over the wire; what is handed on is whole and plain.
_OF_TRANSPORT: Final = frozenset({"transfer-encoding", "content-encoding", "connection", "set-cookie"})


class _Timed(io.RawIOBase):
    """What arrives at a socket until its time is over, however many reads that takes."""

    def __init__(self, sock: Any, raw: io.RawIOBase) -> None:
        self._sock, self._raw = sock, raw
        seconds = sock.gettimeout()
        self._end = None if seconds is None else time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._end is not None:
            left = self._end - time.monotonic()
            if left <= 0:
                raise TimeoutError("the reply has not ended in time")
            self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reply(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Timed(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Reply


class _SecureConnection(HTTPSConnection):
    response_class = _Reply


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS: Final = {"http": _Pool, "https": _SecurePool}


class Bounded(HTTPAdapter):
    """Reads each reply whole: at most `most_bytes`, within the request's timeout from the moment it was sent.

    Raises requests' `ConnectionError` for replies that are longer, compressed although nobody has asked for that, not
    accepted, or that lead to another server: a token must not follow.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES, **kwargs: Any) -> None:
        self._most_bytes = most_bytes
        super().__init__(pool_connections=_CONNECTIONS, pool_maxsize=_CONNECTIONS, **kwargs)

    def accept(self, content: bytes) -> None:
        """Raises `ValueError` for a reply that must not be handed on."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """See `HTTPAdapter`."""
        found = super().proxy_manager_for(*args, **kwargs)
        found.pool_classes_by_scheme = _POOLS
        return found

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """See `HTTPAdapter`."""
        with super().send(request, *args, **{**kwargs, "stream": True}) as reply:
            _require_plain(request, reply)
            content = self._content(request, reply.raw)
        try:
            self.accept(content)
        except ValueError as problem:
            raise requests.ConnectionError(str(problem), request=request) from None
        headers = {key: value for key, value in reply.headers.items() if key.lower() not in _OF_TRANSPORT}
        whole = urllib3.HTTPResponse(
            io.BytesIO(content), headers, reply.status_code, preload_content=False, enforce_content_length=False
        )
        return self.build_response(request, whole)

    def _content(self, request: requests.PreparedRequest, raw: Any) -> bytes:
        content = bytearray()
        try:
            while piece := raw.read(_PIECE, decode_content=False):
                content += piece
                if len(content) > self._most_bytes:
                    raw.close()
                    raise requests.ConnectionError(
                        f"the reply is longer than {self._most_bytes} bytes", request=request
                    )
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            if isinstance(problem, requests.RequestException):
                raise
            raw.close()
            raise requests.ConnectionError(_said(problem), request=request) from None
        raw.release_conn()
        return bytes(content)


def bounded_session(adapter: BaseAdapter | None = None) -> requests.Session:
    """A session that speaks by an adapter of this module only."""
    made = requests.Session()
    mount(made, adapter or Bounded())
    return made


def mount(session: requests.Session, adapter: BaseAdapter) -> None:
    """Let a session speak by an adapter only, keep no cookies, and ask for nothing compressed."""
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["Accept-Encoding"] = "identity"
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)


def _require_plain(request: requests.PreparedRequest, reply: requests.Response) -> None:
    if reply.headers.get("Content-Encoding", "identity") != "identity":
        raise requests.ConnectionError("the reply is compressed, which nobody has asked for", request=request)
    location = reply.headers.get("Location")
    if reply.is_redirect and location and _origin(urljoin(request.url or "", location)) != _origin(request.url or ""):
        raise requests.ConnectionError("the reply leads to another server", request=request)


def _origin(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", url
    return parts.scheme, parts.netloc


def _said(problem: Exception) -> str:
    return "the reply has not ended in time" if isinstance(problem, TimeoutError) else type(problem).__name__
