"""`python -m stepdpo`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder: a yaml.py that lies there must not be taken for the library

from stepdpo.cli.main import main

main()
