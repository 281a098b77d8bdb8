"""Takes memory in a service's cgroup, as a service gone wild would. Usage: allocate.py CGROUP|- MEBIBYTES"""

import os
import sys

cgroup, mebibytes = sys.argv[1], int(sys.argv[2])
if cgroup != "-":
    with open(f"{cgroup}/cgroup.procs", "w") as processes:
        processes.write(str(os.getpid()))
taken = []
for _ in range(mebibytes):
    # Not zeros: these would be one shared page, or none.
    taken.append(b"x" * 1024 * 1024)
print("taken", len(taken))
