"""Image transforms of training, evaluation and prediction."""
