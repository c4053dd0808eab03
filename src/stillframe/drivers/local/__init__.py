"""Instances whose disks are image files on this machine: reflinks, hard links, sparse copies and QEMU's own backups."""
