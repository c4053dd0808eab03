"""The storage driver for IBM Storage Virtualize (SVC, Storwize, FlashSystem), by FlashCopy over the REST API."""
