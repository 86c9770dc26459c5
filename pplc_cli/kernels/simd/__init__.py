"""Building blocks of vectorised kernels, shared by training and inference."""
