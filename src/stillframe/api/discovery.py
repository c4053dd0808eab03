"""The documents that clients find their way by; they need no credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillframe.api import platform_schemas as schemas
from stillframe.api.schemas import Link

if TYPE_CHECKING:
    from stillframe.api.exchange import Exchange, Links

_COMPUTE: Final = ("/compute", "v2.1", "2.1", "2013-07-23T11:33:21Z")
_VOLUME: Final = ("/volume", "v3", "3.0", "2016-12-04T14:00:00Z")


def root(exchange: Exchange) -> schemas.VersionsReply:
    return schemas.VersionsReply(versions=[_version(exchange.links, *_COMPUTE), _version(exchange.links, *_VOLUME)])


def compute(exchange: Exchange) -> schemas.VersionsReply:
    return schemas.VersionsReply(versions=[_version(exchange.links, *_COMPUTE)])


def volume(exchange: Exchange) -> schemas.VersionsReply:
    return schemas.VersionsReply(versions=[_version(exchange.links, *_VOLUME)])


def compute_version(exchange: Exchange) -> schemas.VersionReply:
    return schemas.VersionReply(version=_version(exchange.links, *_COMPUTE))


def _version(links: Links, prefix: str, name: str, number: str, updated: str) -> schemas.Version:
    # Only the version's own document is also served without the prefix; its links then stay without it, too.
    own_form = "" if links.path.rstrip("/") == f"/{name}" else prefix
    return schemas.Version(
        id="v3.0" if name == "v3" else name,
        status="CURRENT",
        # The API is that of the first microversion: none is ever negotiated.
        version=number,
        min_version=number,
        updated=updated,
        links=[Link(rel="self", href=f"{links.base}{own_form}/{name}/")],
        media_types=[
            schemas.MediaType(
                base="application/json", type=f"application/vnd.openstack.{prefix[1:]}+json;version={number[0]}"
            )
        ],
    )
