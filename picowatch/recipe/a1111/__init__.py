"""A1111's "generation parameters": their keys, and texts read and written."""
