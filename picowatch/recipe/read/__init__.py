"""Reads the bytes of each kind of file as entries."""
