"""The settings: oslo.config options, read once into frozen values that are passed as arguments."""

from stillframe.settings.groups import Group
from stillframe.settings.loading import GROUPS, Settings, load, new_conf

__all__ = ["GROUPS", "Group", "Settings", "load", "new_conf"]
