"""`python -m mailrace`."""

import sys

from mailrace.cli import main

sys.exit(main())
