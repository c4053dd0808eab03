"""to come"""

from __future__ import annotations

from tests.lab.openstack.services import Place


class Ceph:
    def __init__(self, place: Place) -> None: ...
    def begin(self) -> None: ...
    def wait(self) -> None: ...
    def cinder_options(self) -> dict[str, str]:
        return {}

    def read(self, image: str, offset: int, length: int | None) -> bytes:
        return b""

    def write(self, image: str, offset: int, data: bytes) -> None: ...
