"""Image files on this machine as volumes: reflinks, hard links, sparse copies and backups by whoever runs the guest."""
