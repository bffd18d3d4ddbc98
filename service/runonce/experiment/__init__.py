"""What an experiment is: pure values and functions; no clock, no network, no files."""
