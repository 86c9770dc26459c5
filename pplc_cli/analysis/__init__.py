"""What one learns about data and runs."""
