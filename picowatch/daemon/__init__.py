"""The daemon: from saves to queued images, and all that keeps it going."""
