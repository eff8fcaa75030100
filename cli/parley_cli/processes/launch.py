"""Becomes another program, after binding this process's life and identity; run as a script, before any import of ours.

Replaces itself by exec, so that a signal to the child's pid reaches the program itself and never a wrapper:

    python -I -S launch.py PARENT_PID DEATH_SIGNAL IDENTITY DIRECTORY PROGRAM [ARGUMENT ...]

DEATH_SIGNAL (0 = none) is what the kernel sends to the program when its parent dies, however it dies.
IDENTITY is `same`; or `userns`: some unprivileged user in a new user namespace, who stays this user for every file
outside (so a program that refuses root runs in folders which only root can enter); or `nobody`: the system's own.
"""

import ctypes
import os
import pwd
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
EXIT_REFUSED = 125
"""Exit code when this system does not allow the identity or the directory."""


def _libc(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}")


def enter_user_namespace() -> None:
    """Makes this process an unprivileged user of a new user namespace that maps to the present one.

    The user is one that the system knows by name: initdb looks itself up.
    """
    uid, gid = os.geteuid(), os.getegid()
    known = next(user for user in pwd.getpwall() if user.pw_uid != 0)
    _libc("unshare", CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{known.pw_uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{known.pw_gid} {gid} 1")


def become_nobody() -> None:
    """Drops every right of this process for those of the user `nobody`."""
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


def bind_to_parent(parent: int, death_signal: int) -> None:
    """Makes the kernel send `death_signal` to this process when `parent` dies; at once if it is dead already."""
    if not death_signal or not sys.platform.startswith("linux"):
        return
    _libc("prctl", PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Sets the identity, then the death signal (a change of identity clears it), then become the program."""
    parent, death_signal, identity, directory, *program = arguments
    try:
        if identity == "userns":
            enter_user_namespace()
        elif identity == "nobody":
            become_nobody()
        os.chdir(directory)
        bind_to_parent(int(parent), int(death_signal))
        os.execv(program[0], program)
    except (OSError, KeyError, StopIteration) as error:
        print(f"cannot start {program[0]} as {identity}: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main(sys.argv[1:])
