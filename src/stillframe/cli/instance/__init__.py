"""Commands around the instances of this machine."""
