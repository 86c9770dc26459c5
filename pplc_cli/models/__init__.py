"""The model zoo: network families, one file each, and their weights."""
