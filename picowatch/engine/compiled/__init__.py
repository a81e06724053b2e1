"""Compiled UNets: made beside the pictures, tried, trusted."""
