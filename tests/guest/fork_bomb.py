"""Forks in a service's cgroup until it is refused or LIMIT children are there, then ends them all.
Usage: fork_bomb.py CGROUP|- LIMIT; waits for a line on standard input before the end."""

import gc
import os
import signal
import sys

cgroup, limit = sys.argv[1], int(sys.argv[2])
if cgroup != "-":
    with open(f"{cgroup}/cgroup.procs", "w") as processes:
        processes.write(str(os.getpid()))
# A child that touches nothing costs little memory: it is the number that is tried here.
gc.freeze()
children = []
refused = None
while len(children) < limit and refused is None:
    try:
        child = os.fork()
    except OSError as error:
        refused = error
        break
    if child == 0:
        while True:
            signal.pause()
    children.append(child)
print(len(children), refused and refused.strerror, flush=True)
sys.stdin.readline()
for child in children:
    os.kill(child, signal.SIGKILL)
for child in children:
    os.waitpid(child, 0)
