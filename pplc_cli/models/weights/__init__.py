"""Pretrained weights: download, read, verify, convert, and load into a network."""
