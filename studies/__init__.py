"""Studies of the methods (`python -m studies.NAME`) and checks of the library itself (`python -m studies.checks.NAME`)."""

import os

# before torch is imported: threads that spin while they wait would be charged as CPU time
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
