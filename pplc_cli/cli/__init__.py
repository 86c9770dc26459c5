"""The command line. Only this folder imports click and rich."""
