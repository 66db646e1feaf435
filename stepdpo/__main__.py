"""`python -m stepdpo`."""

from stepdpo.cli import main

main()
