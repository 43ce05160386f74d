"""``python -m tunelab``, the same as the console script."""

import sys

from tunelab.cli import main

sys.exit(main())
