"""The YAML configuration: its sections, reading and checks."""
