"""Transfer learning: which layers train, at which rate, and how the classifier starts."""
