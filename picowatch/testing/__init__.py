"""For tests: an engine without torch, and crashes on purpose."""
