"""A trained run becomes a folder that inference engines load."""
