"""`python -m tests.chaos --seeds N --jobs 2`: see --help."""

from tests.chaos.cli import main

main()
