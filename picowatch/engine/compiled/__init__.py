"""Compiled UNets."""
