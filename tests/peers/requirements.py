"""What a test needs of the machine; without it the test is skipped and says why."""
import os
import shutil

import pytest

# A root shell that is no login shell may lack the folders of the system's programs.
os.environ["PATH"] = os.environ.get("PATH", "/usr/bin") + ":/usr/sbin"

needs_bed = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes network namespaces")


def needs_program(name, package):
    """A mark that skips where a program is not installed."""
    return pytest.mark.skipif(shutil.which(name) is None,
                              reason=f"{name} is not installed (apt-get install {package})")


needs_nginx = needs_program("nginx", "nginx-light")
