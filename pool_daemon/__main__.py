"""Lets `python -m pool_daemon` be the `pool-daemon` command."""

import sys

from pool_daemon.cli import main

sys.exit(main())
