"""Commands around instance snapshots; they talk to the service over HTTP only."""
