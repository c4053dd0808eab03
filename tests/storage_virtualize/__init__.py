"""The driver for IBM Storage Virtualize, against the simulated array."""
