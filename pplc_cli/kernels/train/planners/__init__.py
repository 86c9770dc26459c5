"""From nodes to steps, one file per kind of layer."""
