"""Our own compute drivers, in all worlds, keep the contract as anybody else"s have to."""

from __future__ import annotations

from stillframe.testing.compute import TestLooking, TestPower, TestQuiesce

__all__ = ["TestLooking", "TestPower", "TestQuiesce"]
