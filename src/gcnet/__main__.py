"""`python -m gcnet` is the `gcnet` command."""

import sys

from gcnet.cli import main

sys.exit(main())
