"""Linux network namespaces by name: make one, enter one, step into one for a moment, delete one.

`setns(2)` acts on the calling *thread*: threads and processes started afterwards inherit the namespace, those
that run already keep theirs. A socket stays for ever in the namespace it was made in (network_namespaces(7)).
"""
import contextlib
import errno
import os
import pathlib

import pyroute2.netns

from pipeline.errors import RunError

FOLDER = pathlib.Path("/run/netns")


class NamespaceError(RunError):
    """A network namespace cannot be made, entered or deleted; the message says which and why."""


def path(namespace: str) -> pathlib.Path:
    """The file that `ip netns` and `nsenter --net=` know the namespace by."""
    return FOLDER / namespace


def exists(namespace: str) -> bool:
    """Whether a namespace of that name is there."""
    return path(namespace).exists()


def create(namespace: str) -> None:
    """Make a namespace, its loopback down and nothing else in it. Raises NamespaceError if it is there already."""
    if exists(namespace):
        raise NamespaceError(f"network namespace {namespace!r} exists already (ip netns delete {namespace})")
    if os.geteuid() != 0:
        raise NamespaceError(f"network namespace {namespace!r} cannot be made: that needs root")
    pyroute2.netns.create(namespace)
    if not exists(namespace):
        raise NamespaceError(f"network namespace {namespace!r} could not be made (try: ip netns add {namespace})")


def delete(namespace: str) -> None:
    """Take the name away; the namespace goes with the last process in it. Does nothing if there is none."""
    if not exists(namespace):
        return
    try:
        pyroute2.netns.remove(namespace)
    except OSError as error:
        raise NamespaceError(f"network namespace {namespace!r} cannot be deleted: {error.strerror}") from error


def enter(namespace: str) -> None:
    """Move the calling thread into a namespace for good. Raises NamespaceError if it is missing or not allowed."""
    if not exists(namespace):
        raise NamespaceError(f"network namespace {namespace!r} does not exist (ip netns add {namespace})")
    try:
        pyroute2.netns.setns(namespace, flags=0)
    except OSError as error:
        reason = "that needs root" if error.errno == errno.EPERM else os.strerror(error.errno)
        raise NamespaceError(f"network namespace {namespace!r} cannot be entered: {reason}") from error


@contextlib.contextmanager
def entered(namespace: str):
    """Be in a namespace for the length of a `with`: sockets made there belong to it ever after."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        try:
            yield
        finally:
            pyroute2.netns.setns(before)
    finally:
        os.close(before)
