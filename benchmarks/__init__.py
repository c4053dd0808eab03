"""What the service costs, always measured side by side with what it is compared with."""
