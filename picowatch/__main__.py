"""`python -m picowatch` is the command `picowatch`."""

import sys

from picowatch.cli import main

sys.exit(main())
