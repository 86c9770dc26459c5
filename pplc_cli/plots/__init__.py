"""Plots, and text drawn into images."""
