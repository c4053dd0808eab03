"""Volumes as files on a shelf."""
