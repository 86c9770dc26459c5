"""Training kernels, one file per kind of operation."""
