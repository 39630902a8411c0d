"""Fixtures that several test modules share."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))


@pytest.fixture(scope="session")
def laboratory(request):
    """A running engine between real hosts, in the Layout that the test is parametrised with.

    One for each layout and session: pytest runs all tests of a layout together.
    """
    from peers.laboratory import open_laboratory

    with open_laboratory(request.param) as opened:
        yield opened
