"""Turn command-line arguments into a stream of images."""
