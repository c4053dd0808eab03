"""The service over HTTP, by the URIs of its contract."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from keystoneauth1 import exceptions

from stillframe.cli.exit_codes import CommandFailed, ExitCode, of_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from keystoneauth1.session import Session

_FIRST_ERROR: Final = 400
_UNAUTHORIZED: Final = 401

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
        created = self._act(instance_id, {"vm-snapshot": body})["instance_snapshot"]
        return str(created["id"]), str(created["task_uri"])

    def restore(self, instance_id: str, snapshot_id: str, *, force: bool, **how: bool) -> str:
        """Restore, or with `retry` or `rollback` that; returns the task's URI."""
        body = {"instance_snapshot_id": snapshot_id, "force": force, **how}
        return str(self._act(instance_id, {"vm-restore": body})["task_uri"])

    def delete(self, snapshot_id: str) -> str:
        """Returns the task's URI."""
        return str(self._call("DELETE", f"{self._snapshots}/{_segment(snapshot_id)}")["task_uri"])

    def update(self, snapshot_id: str, changes: Mapping[str, str]) -> None:
        self._call("PUT", f"{self._snapshots}/{_segment(snapshot_id)}", {"instance-snapshot": dict(changes)})

    def snapshot(self, snapshot_id: str) -> Document:
        return dict(self._call("GET", f"{self._snapshots}/{_segment(snapshot_id)}")["instance_snapshot"])

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
        return dict(self._call("GET", f"{self._snapshots}/get_progress?{urlsplit(task_uri).query}")["details"])

    # Instances.

    def instance(self, instance_id: str) -> Document:
        return dict(self._call("GET", f"{self._servers}/{_segment(instance_id)}")["server"])

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

    def _act(self, instance_id: str, body: Document) -> Document:
        return self._call("POST", f"{self._servers}/{_segment(instance_id)}/action", body)

    def _list(self, uri: str, name: str, query: Mapping[str, Any], *, one_page: bool = False) -> list[Document]:
        asked = urlencode({key: value for key, value in query.items() if value not in (None, "")})
        page = self._call("GET", f"{uri}?{asked}" if asked else uri)
        found = list(page[name])
        while not one_page and (following := _next(page.get(f"{name}_links"))):
            page = self._call("GET", f"{uri}?{urlsplit(following).query}")
            found += page[name]
        return found

    def _call(self, method: str, uri: str, body: Document | None = None) -> Document:
        with border(self.endpoint):
            reply = self._session.request(uri, method, json=body, raise_exc=False, redirect=False)
            try:
                document = reply.json() if reply.content else {}
            except ValueError:
                document = {}
        if reply.status_code >= _FIRST_ERROR:
            message = _message(reply.status_code, document, uri)
            if reply.status_code == _UNAUTHORIZED and self._hint:
                message += f" ({self._hint})"
            raise CommandFailed(of_status(reply.status_code), message)
        if reply.is_redirect:
            elsewhere = reply.headers["Location"]
            raise CommandFailed(
                ExitCode.UNAVAILABLE, f"{self.endpoint} sends to {elsewhere}, which is not followed; say --os-endpoint"
            )
        if not isinstance(document, dict):
            raise CommandFailed(ExitCode.UNAVAILABLE, f"what answers at {self.endpoint} is not this service")
        return document


@contextmanager
def border(where: str) -> Iterator[None]:
    """Translate what keystoneauth raises."""
    try:
        yield
    except exceptions.ConnectFailure as error:
        raise CommandFailed(
            ExitCode.UNAVAILABLE, f"{where} does not answer ({type(error).__name__}); is the service running?"
        ) from None
    except (exceptions.Unauthorized, exceptions.Forbidden) as error:
        raise CommandFailed(ExitCode.NOT_ALLOWED, str(error)) from None
    except exceptions.ClientException as error:
        raise CommandFailed(ExitCode.UNAVAILABLE, str(error) or type(error).__name__) from None


def _message(status: int, document: Any, uri: str) -> str:
    """The text of an error in the style of Nova and Cinder."""
    if isinstance(document, dict):
        for value in document.values():
            if isinstance(value, dict) and value.get("message"):
                return str(value["message"])
    return f"{uri} answered with status {status}"


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
