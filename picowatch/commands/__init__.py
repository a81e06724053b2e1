"""One module per command, or for several alike; each imports only what it needs."""
