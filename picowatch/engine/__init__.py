"""Renders pictures from image requests. Only what the engine's process runs imports torch.

The daemon's side: protocol, options, local, child and ray. The engine process' side, never imported
by the daemon: the renderer, which child_main imports there.
"""
