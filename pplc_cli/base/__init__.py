"""Foundations that know nothing of images or networks."""
