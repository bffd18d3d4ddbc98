"""What runs as one process of a Job. Started as a program, imported by nobody."""
