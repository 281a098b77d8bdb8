"""Holds dpkg's lock, as an upgrade in the background does, until /run/release-dpkg appears."""

import fcntl
import os
import sys
import time

# fcntl's locks belong to the process: the one that starts this waits until the lock is held.
ready, say_ready = os.pipe()
if os.fork():
    os.close(say_ready)
    sys.exit(0 if os.read(ready, 1) else 1)
os.setsid()
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.write(say_ready, b"x")
os.close(say_ready)
# cloud-init reads what its commands print until nobody can print any more.
for descriptor in (0, 1, 2):
    os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
deadline = time.monotonic() + 300
while not os.path.exists("/run/release-dpkg") and time.monotonic() < deadline:
    time.sleep(0.1)
