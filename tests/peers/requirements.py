"""What a test needs of the machine; without it the test is skipped and says why."""
import os
import shutil

import pytest

SYSTEM_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

needs_bed = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes network namespaces")


def needs_program(name, package):
    """A mark that skips where a program is not installed."""
    return pytest.mark.skipif(shutil.which(name, path=SYSTEM_PATH) is None,
                              reason=f"{name} is not installed (apt-get install {package})")


needs_nginx = needs_program("nginx", "nginx-light")
