"""Inference engines with one interface."""
