"""Stable Diffusion with a UNet: encode, denoise, decode."""
