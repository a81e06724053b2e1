"""Files: written whole, opened safely, read with limits, tried again."""
