"""From files to batches: decoding, lists, splitting, transforms, loading."""
