"""How fast an exported network runs on this machine, by engine, and how fast it could run at most."""
