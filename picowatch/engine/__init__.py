"""Renders pictures from image requests. Only what the engine's process runs imports torch.

The daemon's side: protocol, executor, options, batches, child and ray. The engine
process' side, never imported by the daemon: process/child_main, and the renderer that it imports.
"""
