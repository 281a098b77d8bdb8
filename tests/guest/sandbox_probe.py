"""Tries what the service's sandbox forbids, and prints for each attempt `ok` or how it failed, as JSON.

Each attempt works for root outside of the sandbox, and changes nothing there.
"""

import ctypes
import errno
import json
import os
import stat
import time

libc = ctypes.CDLL(None, use_errno=True)
DELETE_MODULE = 176
SYSLOG_ACTION_SIZE_BUFFER = 10


def call(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def opened(path, flags):
    os.close(os.open(path, flags))


def clock_is_set():
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))


def module_is_removed():
    """None has this name: that it is looked for at all is what counts."""
    try:
        call(libc.syscall(DELETE_MODULE, b"no_such_module", os.O_NONBLOCK))
    except FileNotFoundError:
        pass


def device_is_made():
    os.mknod("/tmp/probe-device", stat.S_IFBLK | 0o600, os.stat("/").st_dev)
    os.unlink("/tmp/probe-device")


ATTEMPTS = {
    "ProtectKernelTunables: write into /proc/sys": lambda: opened("/proc/sys/kernel/domainname", os.O_WRONLY),
    "ProtectKernelTunables: write into /sys": lambda: opened(
        "/sys/kernel/mm/transparent_hugepage/enabled", os.O_WRONLY
    ),
    "ProtectKernelTunables: pull the magic key": lambda: opened("/proc/sysrq-trigger", os.O_WRONLY),
    "ProtectKernelModules: see modules": lambda: os.listdir("/usr/lib/modules"),
    "ProtectKernelModules: remove a module": module_is_removed,
    "ProtectKernelLogs: open the kernel's log": lambda: opened("/dev/kmsg", os.O_RDONLY),
    "ProtectKernelLogs: call syslog": lambda: call(libc.klogctl(SYSLOG_ACTION_SIZE_BUFFER, None, 0)),
    "ProtectClock: set the clock": clock_is_set,
    "ProtectClock: open the hardware clock": lambda: opened("/dev/rtc0", os.O_RDONLY),
    "PrivateDevices: open the disk": lambda: opened("/dev/vda", os.O_RDONLY),
    "PrivateDevices: open the memory": lambda: opened("/dev/mem", os.O_RDONLY),
    "PrivateDevices: make a device": device_is_made,
}


def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"


print(json.dumps({name: outcome(attempt) for name, attempt in ATTEMPTS.items()}))
