"""`python -m stepdpo`."""

from stepdpo.cli.main import main

main()
