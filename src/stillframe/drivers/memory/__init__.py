"""The reference: everything is in the memory of this process, and gone with it.

It shows authors of drivers what the ports mean, and stands beside a driver that is tried. Nothing is declared for it:
`MemoryDriver.add_instance` makes its instances.
"""

from stillframe.drivers.memory.driver import MemoryDriver

__all__ = ["MemoryDriver"]
