"""`python -m stepscope` is the command `stepscope`."""

import sys

from stepscope.reports.cli import main

sys.exit(main())
