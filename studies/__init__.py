"""Studies, each one a command: `python -m studies.NAME` of a method, `python -m studies.checks.NAME` of the library itself."""

import os

# before torch is imported: threads that spin while they wait would be charged as CPU time
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
