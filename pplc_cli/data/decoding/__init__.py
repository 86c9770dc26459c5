"""The steps of decoding an image: headers, the fast decoder for JPEG, conversion to RGB, and the memory budget."""
