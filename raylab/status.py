"""`python -m raylab.status RESULTS [...]`: see raylab.report.status."""

import sys

from raylab.report.status import main

if __name__ == "__main__":
    sys.exit(main())
