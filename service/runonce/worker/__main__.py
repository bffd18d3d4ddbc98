"""What `python -m runonce.worker` starts.

Without the collector of cycles while it imports: nothing of that ever goes, and its passes over all that torch has made
took longer than the rest of what a worker does before its first step.
"""

from __future__ import annotations

import gc
import os
import sys

gc.disable()

from runonce.worker.run import main  # noqa: E402 - its imports are what this is for

code = main()
sys.stdout.flush()
sys.stderr.flush()
# Threads that a loop left behind must not keep a finished index from ending.
os._exit(code)
