"""Instances whose volumes are of several drivers."""
