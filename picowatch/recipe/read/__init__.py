"""From bytes to entries: what each kind of file says."""
