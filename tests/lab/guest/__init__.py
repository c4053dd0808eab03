"""A small real guest whose writes can be judged from outside."""
