"""Reading pickles without running them: a small reader, and what NumPy, Paddle and PyTorch write."""
