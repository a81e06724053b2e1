"""Prompts: A1111's grammar, LoRA tags, wildcards."""
