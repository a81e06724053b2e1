"""A loaded checkpoint: its files, their place in memory, texts, LoRAs, and how it is called."""
