"""Put first on PYTHONPATH, this hides from byzopt's own modules what Python lacks on Windows.

Modules that are not there cannot be imported, functions and constants of `os` and `signal` that are not
there cannot be looked up, processes are only spawned, and `sys.platform` is "win32". Torch, the standard
library and other packages have their own cases for each system, and see this one. Every process that byzopt
starts begins here too.
"""

from __future__ import annotations

import builtins
import importlib
from types import ModuleType
from typing import Any

MODULES = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "curses", "readline", "syslog"}
# What the standard library's reference marks as "Availability: Unix", or leaves out for Windows.
LACKING = {
    "os": """fork forkpty getuid geteuid getgid getegid setuid setgid getpgid setpgid setsid getsid killpg
        getloadavg sched_getaffinity sched_setaffinity sched_yield statvfs fstatvfs pathconf fpathconf sysconf
        confstr uname mkfifo mknod chown lchown fchown fchmod fchdir chroot openpty posix_spawn posix_fadvise
        posix_fallocate sendfile pread pwrite nice getpriority register_at_fork wait wait3 wait4 fdatasync
        getxattr setxattr O_CLOEXEC O_NONBLOCK O_DIRECTORY O_NOFOLLOW O_SYNC O_NOCTTY ST_RDONLY WNOHANG""",
    "signal": """SIGKILL SIGHUP SIGQUIT SIGALRM SIGUSR1 SIGUSR2 SIGCHLD SIGCONT SIGSTOP SIGPIPE SIGTSTP alarm
        pause setitimer getitimer pthread_sigmask pthread_kill sigwait siginterrupt""",
    "sys": "",
    "multiprocessing": "",
}
SAYS = {"os": {"name": "nt"}, "sys": {"platform": "win32"}}
_import = builtins.__import__


class Lacking(ModuleType):
    """A module of the standard library as Windows has it."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(_real=real, _gone=set(LACKING[real.__name__].split()))

    def __getattr__(self, name: str) -> Any:
        if name in self._gone:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        if (self.__name__, name) == ("multiprocessing", "get_context"):
            return spawning
        return SAYS.get(self.__name__, {}).get(name, getattr(self._real, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)


def spawning(method: str | None = None) -> Any:
    """The only way to start a process there."""
    if method not in (None, "spawn"):
        raise ValueError(f"cannot find context for {method!r}")
    return importlib.import_module("multiprocessing").get_context("spawn")


def restricted(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> ModuleType:
    """`import` as byzopt's modules meet it."""
    where = str((globals or {}).get("__name__", ""))
    if level or where.split(".")[0] != "byzopt":
        return _import(name, globals, locals, fromlist, level)
    if name.split(".")[0] in MODULES:
        raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
    found = _import(name, globals, locals, fromlist, level)
    if name not in LACKING:
        return found
    if name not in replaced:
        replaced[name] = Lacking(found)
    return replaced[name]


replaced: dict[str, ModuleType] = {}
builtins.__import__ = restricted
