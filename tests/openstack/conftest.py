"""Tests in a real OpenStack, small as it is."""

from __future__ import annotations

from tests.lab.openstack.fixtures import lab, lab_options, tenant

__all__ = ["lab", "lab_options", "tenant"]
