"""The REST API of one array: `POST /rest/v1/<command>[/<object>]`, with a token from `POST /rest/v1/auth`."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import quote

import requests
import tenacity
from pydantic import Field, TypeAdapter
from requests.adapters import BaseAdapter
from typing_extensions import TypedDict

from stillframe.domain.errors import BackendError, InvalidInput, NotSupported, Unavailable
from stillframe.drivers.storage_virtualize.options import ArrayOptions
from stillframe.drivers.storage_virtualize.refusals import refusal
from stillframe.drivers.storage_virtualize.shared import AT_ONCE, TAKING_TURNS, Shared, Turn
from stillframe.foreign import replies
from stillframe.foreign.session import bounded_session

LOG = logging.getLogger(__name__)

_API: Final = "/rest/v1"
_DENIED: Final = frozenset({401, 403})
_DOWN: Final = frozenset({502, 503, 504})
_BUSY: Final = 429
_NO_SUCH: Final = 404
_TRIES_WHEN_BUSY: Final = 6
_TOO_MUCH: Final = "The array says that it gets too many requests, or that others have all the tokens it gives."
_LONGEST_WAIT: Final = 8.0
# A token may have become invalid again before it is used, as when an array is restarted.
_RENEWALS: Final = 2
# An array that is there takes a connection at once, whatever a command takes.
_CONNECT_SECONDS: Final = 10.0


class _Token(TypedDict):
    token: Annotated[str, Field(pattern=r"^[!-~]{1,4096}$")]


_TOKEN: Final = TypeAdapter(_Token)


class _BusyError(Exception):
    """The array answers no more requests at present."""


class Client:
    """One array; safe to use from threads. Every command raises `Unavailable` where its reply is not known.

    A reply that makes no sense, such as a page of a proxy's, says nothing about what the array has done: it is not
    known.
    """

    def __init__(self, options: ArrayOptions, adapter: BaseAdapter | None = None) -> None:
        self.name = options.name
        self._options = options
        self._token = ""
        self._secrets: tuple[str, ...] = ()
        self._signing_in = threading.Lock()
        self._url = options.endpoint.rstrip("/") + _API
        self._shared = _shared(options)
        self._http = bounded_session(adapter)
        self._http.trust_env = False
        self._http.verify = _trust(options)

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def run(
        self,
        command: str,
        subject: str | None = None,
        seconds: float | None = None,
        turn: Turn = TAKING_TURNS,
        /,
        **parameters: str | int | bool,
    ) -> Any:
        """One command and its answer as JSON, or None; parameters that are False are left out.

        `seconds` bounds the wait for the answer where the settings allow more. All go by position, for each name may be
        a parameter's.
        Raises what the array refuses with, `Unavailable`, and `BackendError` for credentials that are not accepted.
        """
        path = f"/{command}" if subject is None else f"/{command}/{quote(subject, safe='')}"
        given = {key: value for key, value in parameters.items() if value is not False}
        LOG.debug("array '%s': %s %s %s", self.name, command, subject or "", given)
        where = f"Array '{self.name}': {command}" + (f" {subject}" if subject else "")
        end = time.monotonic() + min(seconds or self._options.timeout, self._options.timeout)
        reply = self._with_token(where, path, given, end, turn)
        answer = self._answer(where, reply)
        if not reply.ok:
            raise refusal(where, self._plain(answer if isinstance(answer, str) else reply.text))
        return answer

    def reserve(self, count: int) -> Turn:
        """The turn of so many commands that are to be given at once, kept for them; raises `Unavailable`."""
        if self._shared is None:
            return AT_ONCE
        return self._shared.reserve(count, time.monotonic() + self._options.timeout)

    def _answer(self, where: str, reply: requests.Response) -> Any:
        """The document of a reply, or the text of a refusal; raises `Unavailable` for what an array never says."""
        content = reply.content.strip()
        if reply.status_code in _DOWN or reply.is_redirect or content.startswith(b"<"):
            raise Unavailable(
                f"{where}: HTTP {reply.status_code} does not come from the array itself; see what answers there."
            )
        if reply.status_code == _NO_SUCH and b"CMMVC" not in content:
            raise NotSupported(f"{where}: this array has no such command; update its code.")
        try:
            return replies.document(content) if content else None
        except replies.Malformed as problem:
            if not reply.ok:
                # Not all refusals are documents.
                return content.decode(errors="replace")
            raise Unavailable(f"{where}: {problem}") from None

    def _with_token(
        self, where: str, path: str, parameters: dict[str, Any], end: float, turn: Turn
    ) -> requests.Response:
        token = self._token or self._sign_in("", end)
        reply = self._post(where, path, {"X-Auth-Token": token}, parameters, end, turn)
        for _ in range(_RENEWALS):
            if reply.status_code not in _DENIED:
                break
            # Tokens last an hour; after that it is the role that forbids it.
            token = self._sign_in(token, end)
            reply = self._post(where, path, {"X-Auth-Token": token}, parameters, end, turn)
        return reply

    def _sign_in(self, stale: str, end: float) -> str:
        where = f"Array '{self.name}': signing in as '{self._options.username}'"
        if not self._signing_in.acquire(timeout=max(0.0, end - time.monotonic())):
            raise Unavailable(f"{where}: the array has not answered in time.")
        try:
            if self._token != stale:
                # Another thread was faster.
                return self._token
            password = self._password()
            self._secrets = (password, stale)
            ask = partial(self._ask_for_token, where, password, end)
            self._token = ask() if self._shared is None else self._shared.token(stale, password, ask, end)
            self._secrets = (password, stale, self._token)
            return self._token
        finally:
            self._signing_in.release()

    def _ask_for_token(self, where: str, password: str, end: float) -> str:
        headers = {"X-Auth-Username": self._options.username.encode(), "X-Auth-Password": password.encode()}
        reply = self._post(where, "/auth", headers, None, end, TAKING_TURNS)
        if reply.status_code in _DENIED:
            raise BackendError(
                f"{where}: the array does not accept the credentials; correct them in [array:{self.name}]."
            )
        if not reply.ok:
            raise Unavailable(f"{where}: the array answers with HTTP {reply.status_code}.")
        try:
            return replies.shaped(_TOKEN, self._answer(where, reply))["token"]
        except replies.Malformed as problem:
            raise Unavailable(f"{where}: {problem}") from None

    def _password(self) -> str:
        file = self._options.password_file
        if file is None:
            return self._options.password or ""
        try:
            return file.read_text().strip()
        except (OSError, UnicodeDecodeError) as problem:
            reason = getattr(problem, "strerror", None) or "it is no text"
            raise BackendError(
                f"Array '{self.name}': its password_file '{file}' cannot be read: {reason}; "
                "see that the service's user may read it."
            ) from None

    def _post(
        self,
        where: str,
        path: str,
        headers: dict[str, Any],
        parameters: dict[str, Any] | None,
        end: float,
        turn: Turn,
    ) -> requests.Response:
        def send() -> requests.Response:
            if self._shared is not None:
                self._shared.take_turn(end, turn)
            left = end - time.monotonic()
            if left <= 0:
                raise Unavailable(f"{where}: the array has not answered in time.")
            timeout = (min(left, _CONNECT_SECONDS), left)
            try:
                reply = self._http.post(
                    self._url + path, headers=headers, json=parameters, timeout=timeout, allow_redirects=False
                )
            except requests.RequestException as problem:
                raise Unavailable(f"{where}: {self._plain(str(problem) or type(problem).__name__)}") from None
            if reply.status_code == _BUSY:
                if self._shared is not None:
                    self._shared.fill(end)
                raise _BusyError
            return reply

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_BusyError),
            wait=tenacity.wait_exponential(multiplier=self._options.first_wait, max=_LONGEST_WAIT),
            stop=tenacity.stop_after_attempt(_TRIES_WHEN_BUSY)
            | tenacity.stop_before_delay(max(0.001, end - time.monotonic())),
            reraise=True,
        )
        try:
            return retrying(send)
        except _BusyError:
            raise Unavailable(f"{where}: {_TOO_MUCH}") from None
        except Unavailable as problem:
            # Another try did not even come to its turn, or came to nothing.
            again = retrying.statistics["attempt_number"] > 1
            raise Unavailable(f"{problem.message} {_TOO_MUCH}" if again else problem.message) from None

    def _plain(self, text: str) -> str:
        return replies.plain(text, self._secrets)


def _shared(options: ArrayOptions) -> Shared | None:
    if options.shared_folder is None:
        return None
    address = f"{options.endpoint} {options.username}"
    return Shared(options.shared_folder, options.name, address, options.commands_a_second)


def _trust(options: ArrayOptions) -> str | bool:
    """What requests takes: a file or folder of certificates, or whether any is looked at."""
    if not options.verify_tls:
        LOG.warning("array '%s': nobody looks at its certificate, for verify_tls is off", options.name)
        return False
    if options.ca_file is None:
        known = ssl.get_default_verify_paths()
        return known.cafile or known.capath or True
    try:
        ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as problem:
        raise InvalidInput(f"{options.ca_file} cannot be used: {problem}", f"array:{options.name}.ca_file") from None
    return str(options.ca_file)
