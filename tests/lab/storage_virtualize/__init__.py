"""A simulated IBM Storage Virtualize array: its REST API over HTTPS, FlashCopy with bytes and time, and faults."""
