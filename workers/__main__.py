"""`python -m workers` is `firefleet`."""

from workers.cli import main

main(prog_name="firefleet")
