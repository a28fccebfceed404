"""`python -m raylab.query RESULTS "SELECT ..."`: see raylab.results.query."""

import sys

from raylab.results.query import main

if __name__ == "__main__":
    sys.exit(main())
