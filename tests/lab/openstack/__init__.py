"""A small OpenStack of real services on loopback; README.md says what is real and what is not."""
