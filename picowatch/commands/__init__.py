"""One module a command; each imports only what it needs. They build and connect the parts."""
