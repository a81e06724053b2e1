"""Train the embedded demo model from nothing: `python -m training.train`."""
