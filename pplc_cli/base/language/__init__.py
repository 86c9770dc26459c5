"""The language of messages."""
