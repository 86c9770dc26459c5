"""Everything that is drawn. Matplotlib, OpenCV and Pillow load on first use."""
