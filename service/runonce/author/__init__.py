"""What the author of an experiment wrote: files and classes. The only importers of user code."""
