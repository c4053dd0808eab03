"""The REST API of one array: `POST /rest/v1/<command>[/<object>]`, with a token from `POST /rest/v1/auth`."""

from __future__ import annotations

import logging
import ssl
import threading
from typing import Any, Final
from urllib.parse import quote

import httpx
import tenacity

from stillframe.domain.errors import BackendError, InvalidInput, NotSupported, Unavailable
from stillframe.drivers.storage_virtualize.options import ArrayOptions
from stillframe.drivers.storage_virtualize.refusals import refusal

LOG = logging.getLogger(__name__)

_API: Final = "/rest/v1"
_DENIED: Final = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN})
_DOWN: Final = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT})
_TRIES_WHEN_BUSY: Final = 6
_LONGEST_WAIT: Final = 8.0
# A token may have become invalid again before it is used, as when an array is restarted.
_RENEWALS: Final = 2
_CONNECT_SECONDS: Final = 10.0


class _BusyError(Exception):
    """The array answers no more requests at present."""


class Client:
    """One array; safe to use from threads. Every command raises `Unavailable` where its reply is not known."""

    def __init__(self, options: ArrayOptions, transport: httpx.BaseTransport | None = None) -> None:
        self.name = options.name
        self._options = options
        self._token = ""
        self._signing_in = threading.Lock()
        self._http = httpx.Client(
            base_url=options.endpoint.rstrip("/") + _API,
            timeout=_timeout(options.timeout),
            verify=_trust(options),
            transport=transport,
            limits=httpx.Limits(max_connections=16, keepalive_expiry=60),
            trust_env=False,
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def run(
        self, command: str, subject: str | None = None, seconds: float | None = None, /, **parameters: str | int | bool
    ) -> Any:
        """One command and its answer as JSON, or None; parameters that are False are left out.

        `seconds` bounds the wait for the answer where the settings allow more. Raises what the array refuses with,
        `Unavailable`, and `BackendError` for credentials that are not accepted.
        """
        path = f"/{command}" if subject is None else f"/{command}/{quote(subject, safe='')}"
        given = {key: value for key, value in parameters.items() if value is not False}
        LOG.debug("array '%s': %s %s %s", self.name, command, subject or "", given)
        where = f"array '{self.name}': {command}" + (f" {subject}" if subject else "")
        timeout = _timeout(min(seconds or self._options.timeout, self._options.timeout))
        reply = self._with_token(where, path, given, timeout)
        if reply.status_code in _DOWN:
            raise Unavailable(f"{where}: the array answers with HTTP {reply.status_code}")
        if reply.status_code == httpx.codes.NOT_FOUND and "CMMVC" not in reply.text:
            raise NotSupported(f"{where}: this array has no such command")
        if reply.is_error:
            raise refusal(where, _text(reply))
        return reply.json() if reply.content.strip() else None

    def _with_token(self, where: str, path: str, parameters: dict[str, Any], timeout: httpx.Timeout) -> httpx.Response:
        token = self._token or self._sign_in("")
        reply = self._post(where, path, {"X-Auth-Token": token}, parameters, timeout)
        for _ in range(_RENEWALS):
            if reply.status_code not in _DENIED:
                break
            # Tokens last an hour; after that it is the role that forbids it.
            token = self._sign_in(token)
            reply = self._post(where, path, {"X-Auth-Token": token}, parameters, timeout)
        return reply

    def _sign_in(self, stale: str) -> str:
        with self._signing_in:
            if self._token != stale:
                # Another thread was faster.
                return self._token
            where = f"array '{self.name}': signing in as '{self._options.username}'"
            headers = {"X-Auth-Username": self._options.username, "X-Auth-Password": self._password()}
            reply = self._post(where, "/auth", headers, None, _timeout(self._options.timeout))
            if reply.status_code in _DENIED:
                raise BackendError(f"{where}: the array does not accept the credentials")
            if reply.is_error:
                raise Unavailable(f"{where}: the array answers with HTTP {reply.status_code}")
            self._token = str(reply.json()["token"])
            return self._token

    def _password(self) -> str:
        file = self._options.password_file
        if file is None:
            return self._options.password or ""
        try:
            return file.read_text().strip()
        except OSError as problem:
            raise BackendError(f"array '{self.name}': {file} cannot be read: {problem.strerror}") from None

    def _post(
        self,
        where: str,
        path: str,
        headers: dict[str, str],
        parameters: dict[str, Any] | None,
        timeout: httpx.Timeout,
    ) -> httpx.Response:
        def send() -> httpx.Response:
            try:
                reply = self._http.post(path, headers=headers, json=parameters, timeout=timeout)
            except httpx.TransportError as problem:
                raise Unavailable(f"{where}: {problem or type(problem).__name__}") from None
            if reply.status_code == httpx.codes.TOO_MANY_REQUESTS:
                raise _BusyError
            return reply

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_BusyError),
            wait=tenacity.wait_exponential(multiplier=self._options.first_wait, max=_LONGEST_WAIT),
            stop=tenacity.stop_after_attempt(_TRIES_WHEN_BUSY),
            reraise=True,
        )
        try:
            return retrying(send)
        except _BusyError:
            raise Unavailable(f"{where}: the array says that it gets too many requests") from None


def _timeout(seconds: float) -> httpx.Timeout:
    # An array that is there takes a connection at once, whatever a command takes.
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))


def _trust(options: ArrayOptions) -> ssl.SSLContext | bool:
    if not options.verify_tls:
        LOG.warning("array '%s': nobody looks at its certificate, for verify_tls is off", options.name)
        return False
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as problem:
        raise InvalidInput(f"{options.ca_file} cannot be used: {problem}", f"array:{options.name}.ca_file") from None


def _text(reply: httpx.Response) -> str:
    try:
        said = reply.json()
    except ValueError:
        return reply.text
    return said if isinstance(said, str) else reply.text
