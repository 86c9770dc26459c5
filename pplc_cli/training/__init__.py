"""Train, evaluate and distill networks."""
