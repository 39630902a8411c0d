"""What `http_path` and `http_host` make of rules that are exact, or for all names below one."""

import pytest
from select_bed import ask_all_cuts, selection

from pipeline.kernels.select_content import http_host, http_path
from pipeline.kernels.services import NEED_MORE, NO_MATCH


@pytest.mark.parametrize(("path", "member"), [("/", 0), ("/a", 1), ("/a?b=/a", 1), ("/ab", 0), ("/a/", 0), ("/a/b/c", 2), ("/a/b?c", 2),
                                              ("*", NO_MATCH), ("?", NO_MATCH)])
def test_an_exact_path_is_all_of_it_without_its_query(path, member):
    rules = selection("http_path", "/", {"match": "/a", "exact": True}, "/a/b")
    assert ask_all_cuts(http_path, rules, f"GET {path} HTTP/1.1\r\n\r\n".encode()) == member


@pytest.mark.parametrize(("host", "member"), [("a.org", 0), ("x.a.org", 1), ("X.Y.A.ORG:80", 1), (".a.org", NO_MATCH), ("b.a.org", 2),
                                              ("xa.org", NO_MATCH), ("c.b.a.org", 1), ("a.org.", NO_MATCH), ("[a.org", NO_MATCH)])
def test_a_host_below_a_name_is_not_the_name_itself(host, member):
    rules = selection("http_host", "a.org", "*.A.org", "b.a.org")
    assert ask_all_cuts(http_host, rules, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == member


def test_without_an_end_more_is_needed():
    assert ask_all_cuts(http_host, selection("http_host", "a.org"), b"GET / HTTP/1.1\r\nHost: a.org") == NEED_MORE
