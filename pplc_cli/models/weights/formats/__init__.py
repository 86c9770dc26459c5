"""Read files of weights: no code in a file is ever run."""
