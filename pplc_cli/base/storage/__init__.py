"""Files and folders on this machine: atomic writes, locks, the cache folder, downloads."""
