"""Our own storage drivers, in all worlds, keep the contract as anybody else"s have to."""

from __future__ import annotations

from stillframe.testing.storage import TestChecks, TestCopies, TestRestore

__all__ = ["TestChecks", "TestCopies", "TestRestore"]
