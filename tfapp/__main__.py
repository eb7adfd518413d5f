"""Lets ``python -m tfapp`` be the command line."""

from tfapp.cli import main

main()
