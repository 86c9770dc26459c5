"""Predictions as JSON lines, CSV, Parquet or annotated images."""
