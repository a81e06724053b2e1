"""Files: written atomically, opened safely, read with limits, tried again."""
