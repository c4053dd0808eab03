"""Point-in-time snapshots of all volumes of a virtual machine, and their restore in place."""
