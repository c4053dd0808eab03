"""One file per operation; a flow reads as its own summary on one screen."""
