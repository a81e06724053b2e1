"""Families that step along a flow, through diffusers' pipelines: one adapter, a row each."""
