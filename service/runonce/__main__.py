"""`python -m runonce` is the command line."""

from runonce.cli import main

main()
