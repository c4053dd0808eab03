"""The reference: everything is in the memory of this process, and gone with it."""

from stillframe.drivers.memory.driver import MemoryDriver

__all__ = ["MemoryDriver"]
