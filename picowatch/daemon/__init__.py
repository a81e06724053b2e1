"""The daemon: from saves to pictures, and all that keeps it going."""
