"""Makes pictures from image requests. Only what the child process runs imports torch.

The daemon's side: protocol, options, batches, child (the child process) and digest (the tests'
engine). The child's side, never imported by the daemon: child_main and what it imports.
"""
