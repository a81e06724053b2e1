"""Networks beside the checkpoint: upscalers, cutouts, and what prepares control images."""
