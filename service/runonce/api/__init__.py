"""What a user can have done, as calls: read a target, run it, look at results. The command line calls these."""
