"""Knowledge distillation and pseudo-labels."""
