"""What the operating system offers and the standard library does not: private files, and locks on bytes of a file."""
