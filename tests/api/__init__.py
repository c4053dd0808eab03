"""Stories over HTTP, told to a running service with a real database and the driver for a world in memory."""
