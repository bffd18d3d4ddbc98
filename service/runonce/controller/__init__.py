"""Observe, decide, apply: what is done about an experiment, here and in a cluster."""
