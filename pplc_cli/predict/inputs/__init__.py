"""Command-line arguments become a stream of images."""
