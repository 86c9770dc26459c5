"""The sample data set: drawn pandas and tigers."""
