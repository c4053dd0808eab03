"""The port to platforms that have users of their own and decide what each of them sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from stillframe.domain.instance import Instance, Volume


class Visibility(ABC):
    """Instances and volumes as the owner of a token sees them.

    What the owner does not see raises `NotFound`; a token that does not hold raises `Unauthorized`, and a role that
    does not allow it `Forbidden`. Besides, as every port: `Unavailable` and `BackendError`.
    """

    @abstractmethod
    def list_instances(self, token: str, *, all_projects: bool) -> Sequence[Instance]:
        """The instances of the token's project, or of all for whoever may see them."""
        ...

    @abstractmethod
    def get_instance(self, token: str, instance_id: str) -> Instance:
        """One instance."""
        ...

    @abstractmethod
    def list_volumes(self, token: str, *, all_projects: bool) -> Sequence[Volume]:
        """The volumes of the token's project, or of all for whoever may see them."""
        ...

    @abstractmethod
    def own_volumes(self, token: str) -> Collection[str]:
        """Ids of volumes of the token's project, by one request; of very many not all."""
        ...

    @abstractmethod
    def get_volume(self, token: str, volume_id: str) -> Volume:
        """One volume."""
        ...
