"""This process and others: signals, forks, and whether a process still runs."""
