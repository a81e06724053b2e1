"""For tests: crashes on purpose."""
