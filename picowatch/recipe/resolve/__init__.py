"""Turns entries into recipes: values are looked up, checked and decided."""
