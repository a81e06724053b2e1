"""Draws the images of a batch, step by step, and finishes them."""
