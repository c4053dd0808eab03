"""QEMU processes on this machine that are declared in files: their monitors, agents and power."""
