"""Image files of this machine and files of the service itself: opened in verified folders, locked as QEMU locks."""
