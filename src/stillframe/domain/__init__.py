"""Frozen values, the status table and the error tree; imports nothing of the rest of the package."""
