"""An image with the C library and the Python that runs the tests, of this machine's own files."""

from __future__ import annotations

import functools
import io
import os
import sys
import sysconfig
import tarfile

from tests.support.dockerd import Dockerd, glibc_files, libraries

PYTHON = "skep-test/python:1"
# What no program of the tests imports, which is the larger part.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "lib2to3"}
_LEFT_OUT |= {"ensurepip", "pydoc_data", "turtledemo", "__pycache__", "distutils"}
_PROGRAMS = ("/usr/bin/test",)


def make_python_image(docker: Dockerd, name: str = PYTHON, *changes: str) -> None:
    """Have the image in an engine; further lines of a Dockerfile are in `changes`."""
    docker.make_image(name, python_files(), 'CMD ["python3"]', "ENV PATH=/usr/bin:/bin", *changes)


@functools.cache
def python_files() -> bytes:
    """Those of the image: on top of a C library with a shell, `python3` in PATH."""
    out = io.BytesIO(glibc_files())
    program = os.path.realpath(sys.executable)
    with tarfile.open(fileobj=out, mode="a") as tar:
        wanted = {program, *_PROGRAMS}
        for folder, names, files in os.walk(sysconfig.get_path("stdlib")):
            names[:] = [name for name in names if name not in _LEFT_OUT]
            wanted |= {f"{folder}/{name}" for name in files if name.endswith((".py", ".so"))}
        binaries = [path for path in wanted if not path.endswith(".py")]
        wanted |= {library for path in binaries for library in libraries(path)}
        there = set(tar.getnames())
        for path in sorted(wanted):
            if path.lstrip("/") not in there:
                tar.add(os.path.realpath(path), path.lstrip("/"))
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, program
        tar.addfile(link)
    return out.getvalue()
