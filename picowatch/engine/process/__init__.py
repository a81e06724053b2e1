"""The engine's process: starting it, talking to it, its end."""
