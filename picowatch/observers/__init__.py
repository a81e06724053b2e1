"""Observers of the work: console, hooks, metrics, preview."""
