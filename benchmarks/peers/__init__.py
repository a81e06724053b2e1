"""Programs such as people write without picowatch, to measure it against."""
