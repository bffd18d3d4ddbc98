"""Where results are kept: a folder or a bucket, behind one protocol."""
