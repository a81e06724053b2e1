"""Turns queued images into published pictures: engines, batches, publishing."""
