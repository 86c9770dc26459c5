"""Forward and backward kernels: a Paddle network trains through them."""
