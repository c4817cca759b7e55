"""`python -m legivellum_worker`: the worker where no `legivellum` command is installed."""

import sys

from legivellum_worker.main import main

sys.exit(main())
