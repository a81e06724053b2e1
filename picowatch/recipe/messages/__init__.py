"""What is wrong with a recipe, and where, in words for people."""
