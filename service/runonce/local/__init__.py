"""Jobs on this machine: processes with the semantics of an Indexed Job."""
