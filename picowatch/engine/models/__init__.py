"""Checkpoints, from files to memory."""
