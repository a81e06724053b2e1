"""Recipes: text in, values out. Pure: no clock, no disk, no torch, no randomness."""
