"""The HTTP interface: one route table, strict models, and the only mapping of errors to replies."""
