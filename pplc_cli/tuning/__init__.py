"""Find what suits one's own photographs: learning rate, folds and ensembles, and the search over configurations."""
