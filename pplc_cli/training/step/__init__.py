"""What a training step consists of: loss, optimizer, and the number of images."""
