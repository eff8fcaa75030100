"""Copies a Python interpreter, its standard library and the shared libraries both need into a folder: rootfs.py FOLDER.

Runs inside the build, in an image that has Python in /usr/local. The result holds no shell and no package installer.
"""

import compileall
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from elf import strip, strip_all

STDLIB = Path(sysconfig.get_path("stdlib"))
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "*.a", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3",
    "ensurepip", "venv", "pydoc_data", "site-packages", "config-3*",
    "_test*.so", "_tkinter*.so", "xxlimited*.so", "_ctypes_test*.so",
)  # fmt: skip
# Wheels may count on these (the manylinux promise); nothing of the interpreter itself names the C++ ones.
PROMISED = (
    "libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0", "librt.so.1", "libdl.so.2", "libutil.so.1", "libresolv.so.2",
    "libnss_dns.so.2", "libnss_files.so.2", "libz.so.1",
)  # fmt: skip
FILES = (
    "/etc/nsswitch.conf", "/etc/protocols", "/etc/services", "/etc/os-release", "/etc/ssl/certs/ca-certificates.crt",
)  # fmt: skip
ZONES = Path("/usr/share/zoneinfo")
USER = 65532


def libraries_of(*programs: Path) -> set[Path]:
    """Return the shared libraries, the loader included, that these files are linked with."""
    listed = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=True).stdout
    words = {word for line in listed.splitlines() if "=>" in line or "ld-linux" in line for word in line.split()}
    return {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}


def promised() -> set[Path]:
    """Return where the loader finds the libraries that wheels may count on."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = {line.split()[0]: Path(line.split()[-1]) for line in reversed(listed.splitlines()[1:]) if "=>" in line}
    return {found[name] for name in PROMISED if name in found}


def copy(root: Path, source: Path) -> None:
    """Copy one file to the same path below `root`, whatever links lead to it."""
    target = root / source.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def main() -> None:
    """Fill the folder."""
    root = Path(sys.argv[1])
    for link in ("lib", "lib64", "bin"):
        (root / "usr" / link).mkdir(parents=True)
        (root / link).symlink_to(f"usr/{link}")
    for folder in ("tmp", "etc", "proc", "sys", "dev", "home/parley"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    interpreter = Path(sys.executable).resolve()
    shutil.copytree(STDLIB, root / STDLIB.relative_to("/"), ignore=LEFT_OUT)
    (root / STDLIB.relative_to("/") / "site-packages").mkdir()
    copy(root, interpreter)
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(interpreter.name)
    modules = list((STDLIB / "lib-dynload").glob("*.so"))
    for library in libraries_of(interpreter, *(m for m in modules if "tkinter" not in m.name)) | promised():
        copy(root, library)
    for file in FILES:
        if Path(file).exists():
            copy(root, Path(file))
    if ZONES.is_dir():
        others = shutil.ignore_patterns("right", "posix")
        shutil.copytree(ZONES, root / ZONES.relative_to("/"), ignore=others, ignore_dangling_symlinks=True)
    strip(root / interpreter.relative_to("/"))
    for folder in ("usr/lib", "usr/lib64", "usr/local/lib"):
        strip_all(root / folder)
    # The root is read-only when it runs: byte code that is not here would be made anew at every start.
    compileall.compile_dir(root / STDLIB.relative_to("/"), stripdir=str(root), quiet=2, workers=0)
    (root / "etc/passwd").write_text(f"parley:x:{USER}:{USER}:Parley:/home/parley:/nonexistent\n")
    (root / "etc/group").write_text(f"parley:x:{USER}:\n")


main()
