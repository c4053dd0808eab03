"""What others say, who may be hostile: read with bounds on bytes, depth and time, and of the shape that is expected."""
