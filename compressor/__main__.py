"""`python -m compressor` is `compress`."""

import sys

from compressor.cli import main

sys.exit(main())
