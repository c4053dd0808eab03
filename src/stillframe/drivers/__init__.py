"""The two ports to platforms (`compute`, `storage`), their drivers, and the wrappers that carry policy around them."""
