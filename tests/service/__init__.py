"""picowatch under a service manager."""
