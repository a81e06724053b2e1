"""From entries to recipes: values looked up, checked and decided."""
