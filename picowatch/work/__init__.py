"""From queued images to published pictures: engines, batches, publishing."""
