"""Use cases: check, advance the status and enqueue, in one transaction; and the policy table."""
