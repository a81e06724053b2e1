"""Upscalers: networks that enlarge pixels."""
