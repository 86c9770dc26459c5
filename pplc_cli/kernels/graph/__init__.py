"""Exported networks as plain data, read and written without Paddle."""
