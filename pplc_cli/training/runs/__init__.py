"""Run folders: their files, checkpoints and resuming."""
