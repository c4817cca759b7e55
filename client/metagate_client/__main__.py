"""`python -m metagate_client`: the client where no `metagate` command is installed."""

import sys

from metagate_client.main import main

sys.exit(main())
