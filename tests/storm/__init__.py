"""Kills at random times: `make storm`."""
