"""Rendering a batch in less and less memory."""
