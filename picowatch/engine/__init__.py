"""Renders pictures from image requests. Only code that runs in the engine process imports torch.

The daemon's side is protocol, child and ray. The engine process' side, never imported by the
daemon, is the renderer, which child_main imports there, and what it uses.
"""
