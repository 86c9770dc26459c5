"""Pretrained weights: where they come from, how they are read, verified and fitted to a network."""
