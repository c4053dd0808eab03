"""What the local drivers stand on: files of this machine, opened in verified folders, locked as QEMU locks images."""
