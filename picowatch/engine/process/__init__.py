"""Engines in processes of their own: a child behind a pipe, or actors of a Ray cluster."""
