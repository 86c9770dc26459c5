"""Measure networks and engines on this machine, and the lower bound of their time."""
