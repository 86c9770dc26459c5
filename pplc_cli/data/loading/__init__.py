"""From lists to batches: the images of an epoch, decoded images in memory, the loader."""
