"""Image transforms for training, evaluation and prediction."""
