"""What several folders of tests stand on: a server that forks services, faults of the drivers, a service in memory."""
