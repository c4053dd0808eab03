"""The service over HTTP: its URIs, bounds on the time that a request takes, and plain words where it fails."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from keystoneauth1 import exceptions
from keystoneauth1.session import TCPKeepAliveAdapter

from stillframe.cli.exit_codes import CommandFailed, ExitCode, of_status
from stillframe.cli.options import ENDPOINT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from keystoneauth1.session import Session

_FIRST_ERROR: Final = 400
_UNAUTHORIZED: Final = 401
# For a connection with its TLS handshake; the reply may take longer.
_CONNECT_SECONDS: Final = 10.0
_UNSENT: Final = ("Connection refused", "NameResolutionError", "Network is unreachable", "No route to host")
_LOOK: Final = "whether it has accepted the request is not known: look (stillframe snapshot list) before you try again"

Document = dict[str, Any]


class Client:
    """One caller in one project; every error is a `CommandFailed`."""

    def __init__(self, session: Session, endpoint: str, project_id: str, hint: str = "") -> None:
        """`hint` says why no credentials are sent, where the service asks for some."""
        self._session = session
        self._hint = hint
        self.endpoint = endpoint
        self.project_id = project_id
        project = quote(project_id, safe="")
        self._servers = f"{endpoint}/compute/v2.1/{project}/servers"
        self._snapshots = f"{endpoint}/volume/v3/{project}/instance-snapshots"
        self._volumes = f"{endpoint}/volume/v3/{project}/volumes"
        self._services = f"{endpoint}/volume/v3/{project}/os-services"

    # Instance snapshots.

    def create(
        self, instance_id: str, name: str, description: str, volumes: Sequence[str], minimum: str | None = None
    ) -> tuple[str, str]:
        """Returns the snapshot's id and its task's URI."""
        body: Document = {"name": name, "description": description}
        if volumes:
            body["volumes"] = list(volumes)
        if minimum is not None:
            body["minimum_consistency"] = minimum
        created = self._part(self._act(instance_id, {"vm-snapshot": body}), "instance_snapshot", dict)
        return self._part(created, "id", str), self._part(created, "task_uri", str)

    def restore(self, instance_id: str, snapshot_id: str, *, force: bool, **how: bool) -> tuple[str, str]:
        """Restore, or with `retry` or `rollback` that; returns the task's URI, and a notice or nothing."""
        body = {"instance_snapshot_id": snapshot_id, "force": force, **how}
        accepted = self._act(instance_id, {"vm-restore": body})
        return str(self._part(accepted, "task_uri", str)), str(accepted.get("notice") or "")

    def delete(self, snapshot_id: str) -> str:
        """Returns the task's URI."""
        deleted = self._call("DELETE", f"{self._snapshots}/{_segment(snapshot_id)}")
        return str(self._part(deleted, "task_uri", str))

    def update(self, snapshot_id: str, changes: Mapping[str, str]) -> None:
        self._call("PUT", f"{self._snapshots}/{_segment(snapshot_id)}", {"instance-snapshot": dict(changes)})

    def snapshot(self, snapshot_id: str) -> Document:
        found = self._call("GET", f"{self._snapshots}/{_segment(snapshot_id)}")
        return dict(self._part(found, "instance_snapshot", dict))

    def snapshots(self, query: Mapping[str, Any], *, one_page: bool = False) -> list[Document]:
        """All instance snapshots that fit the query, page by page; or only its first page."""
        return self._list(self._snapshots, "instance_snapshots", query, one_page=one_page)

    def find_snapshot(self, reference: str) -> Document:
        """An instance snapshot by its id, else by its name."""
        try:
            return self.snapshot(reference)
        except CommandFailed as failure:
            if failure.code is not ExitCode.NOT_FOUND:
                raise
        return _only(self.snapshots({"name": reference}), "instance snapshot", reference)

    def progress(self, task_uri: str) -> Document:
        """The document of a task's URI, asked for where everything else is: the credentials go nowhere else."""
        found = self._call("GET", f"{self._snapshots}/get_progress?{urlsplit(task_uri).query}")
        return dict(self._part(found, "details", dict))

    # Instances.

    def instance(self, instance_id: str) -> Document:
        return dict(self._part(self._call("GET", f"{self._servers}/{_segment(instance_id)}"), "server", dict))

    def instances(self, query: Mapping[str, Any]) -> list[Document]:
        return self._list(f"{self._servers}/detail", "servers", query)

    def find_instance(self, reference: str) -> Document:
        """An instance by its id, else by its name."""
        try:
            return self.instance(reference)
        except CommandFailed as failure:
            if failure.code is not ExitCode.NOT_FOUND:
                raise
        # The service looks for the name anywhere in the names, as Nova does.
        found = [one for one in self.instances({"name": reference}) if one["name"] == reference]
        return _only(found, "instance", reference)

    def start(self, instance_id: str) -> None:
        self._act(instance_id, {"os-start": None})

    def stop(self, instance_id: str) -> None:
        self._act(instance_id, {"os-stop": None})

    def volumes(self, query: Mapping[str, Any]) -> list[Document]:
        return self._list(f"{self._volumes}/detail", "volumes", query)

    def attached(self, instance_id: str) -> list[tuple[Document, Document]]:
        """The volumes that an instance has, each with how it is attached there."""
        return [
            (volume, attachment)
            for volume in self.volumes({})
            for attachment in volume["attachments"]
            if attachment["server_id"] == instance_id
        ]

    # Workers.

    def workers(self) -> list[Document]:
        return self._list(self._services, "services", {})

    def _act(self, instance_id: str, body: Document) -> Document:
        return self._call("POST", f"{self._servers}/{_segment(instance_id)}/action", body)

    def _list(self, uri: str, name: str, query: Mapping[str, Any], *, one_page: bool = False) -> list[Document]:
        asked = urlencode({key: value for key, value in query.items() if value not in (None, "")})
        page = self._call("GET", f"{uri}?{asked}" if asked else uri)
        found = list(self._part(page, name, list))
        while not one_page and (following := _next(page.get(f"{name}_links"))):
            page = self._call("GET", f"{uri}?{urlsplit(following).query}")
            found += self._part(page, name, list)
        return found

    def _call(self, method: str, uri: str, body: Document | None = None) -> Document:
        with translating(self.endpoint, changing=method != "GET"):
            reply = self._session.request(uri, method, json=body, raise_exc=False, redirect=False)
        try:
            document = reply.json() if reply.content else {}
        except ValueError:
            document = None
        if reply.is_redirect:
            elsewhere = reply.headers["Location"]
            raise CommandFailed(
                ExitCode.UNAVAILABLE, f"{self.endpoint} sends to {elsewhere}, which is not followed; say --os-endpoint"
            )
        if reply.status_code >= _FIRST_ERROR:
            raise self._refusal(reply.status_code, document)
        if not isinstance(document, dict):
            raise self._stranger(f"{method} was answered with {reply.headers.get('Content-Type', 'something')}")
        return document

    def _refusal(self, status: int, document: Any) -> CommandFailed:
        message, code = _message(document), of_status(status)
        if not message and code in (ExitCode.NOT_FOUND, ExitCode.REFUSED):
            # It is somebody else who knows no such thing.
            return self._stranger(f"it answered with status {status}")
        message = message or f"{self.endpoint} answered with status {status}"
        if status == _UNAUTHORIZED and self._hint:
            message += f" ({self._hint})"
        return CommandFailed(code, message)

    def _part(self, document: Document, key: str, kind: type) -> Any:
        """What an answer of the service has under a key."""
        found = document.get(key)
        if not isinstance(found, kind):
            raise self._stranger(f"its answer has no '{key}'")
        return found

    def _stranger(self, why: str) -> CommandFailed:
        return CommandFailed(
            ExitCode.UNAVAILABLE, f"what answers at {self.endpoint} is not this service: {why}; is the address right?"
        )


def _message(document: Any) -> str:
    """The text of an error in the style of Nova and Cinder; empty where there is none."""
    values = document.values() if isinstance(document, dict) else ()
    return next((str(value["message"]) for value in values if isinstance(value, dict) and value.get("message")), "")


def _next(links: Any) -> str | None:
    return next((str(link["href"]) for link in links or () if link.get("rel") == "next"), None)


def _segment(value: str) -> str:
    return quote(value, safe="")


def _only(found: Sequence[Document], what: str, reference: str) -> Document:
    if not found:
        raise CommandFailed(ExitCode.NOT_FOUND, f"there is no {what} with the id or name '{reference}'")
    if len(found) > 1:
        ids = ", ".join(str(one["id"]) for one in found)
        raise CommandFailed(ExitCode.REFUSED, f"{len(found)} {what}s are called '{reference}'; say which by id: {ids}")
    return found[0]


class Adapter(TCPKeepAliveAdapter):
    """Sends requests, with less time for the connection than for the reply."""

    def send(self, *args: Any, **options: Any) -> Any:
        """See `requests`."""
        timeout = options.get("timeout")
        if isinstance(timeout, (int, float)):
            options["timeout"] = (min(timeout, _CONNECT_SECONDS), timeout)
        return super().send(*args, **options)


def address(option: str, text: str) -> str:
    """The address that an option gives; raises `CommandFailed` for what cannot be one."""
    try:
        where = urlsplit(text)
        usable = where.scheme in ("http", "https") and where.hostname and where.port != 0
    except ValueError:
        usable = False
    if not usable:
        example = f"http://{text}" if "://" not in text and text else ENDPOINT
        raise CommandFailed(
            ExitCode.USAGE, f"{option}: '{text}' is no address; it begins with http:// or https://, such as {example}"
        )
    if where.query or where.fragment:
        raise CommandFailed(ExitCode.USAGE, f"{option}: '{text}' is an address with a question; leave out what follows")
    return text.rstrip("/")


@contextmanager
def translating(where: str, *, changing: bool = False) -> Iterator[None]:
    """Translate what keystoneauth raises; `changing`: a request that the service may have accepted all the same."""
    try:
        yield
    except exceptions.ConnectionError as error:
        said = str(error)
        unknown = changing and not any(text in said for text in _UNSENT)
        raise CommandFailed(
            ExitCode.UNAVAILABLE, _why(where, error, said) + (f"; {_LOOK}" if unknown else "")
        ) from None
    except (exceptions.Unauthorized, exceptions.Forbidden) as error:
        raise CommandFailed(ExitCode.NOT_ALLOWED, str(error)) from None
    except exceptions.ClientException as error:
        raise CommandFailed(ExitCode.UNAVAILABLE, str(error) or type(error).__name__) from None
    except KeyboardInterrupt:
        if not changing:
            raise
        raise CommandFailed(ExitCode.INTERRUPTED, f"interrupted; {_LOOK}") from None


def _why(where: str, error: exceptions.ConnectionError, said: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"the certificate of {where} is not trusted; --os-cacert says which authorities are"
    secure = where.startswith("https:")
    hint = "; if it serves plain HTTP, its address begins with http://" if secure else ""
    if "Connection refused" in said:
        return f"{where} does not answer: nothing listens there; is the service running?"
    if "NameResolutionError" in said:
        return f"{where} does not answer: its host name cannot be resolved"
    if isinstance(error, exceptions.SSLError):
        return f"{where} does not speak TLS as it should{hint}"
    if isinstance(error, exceptions.ConnectTimeout):
        return f"{where} does not answer in time{hint}"
    return f"{where} broke the connection off, or cannot be reached{hint}"
