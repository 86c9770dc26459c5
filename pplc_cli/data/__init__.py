"""Data sets: decoding, lists, splitting, transforms, loading."""
