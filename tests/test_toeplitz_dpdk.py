"""The Toeplitz hash of ours against DPDK's (rte_softrss), and both against Microsoft's published vectors."""
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated

from pipeline.kernels.toeplitz import KEY, SHORTEST_KEY, make_tables, toeplitz

shim = pytest.importorskip("pipeline.io.shim", reason="DPDK is not installed", exc_type=ImportError)
WORD, PORT = st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1)


@pytest.mark.parametrize("source, destination, source_port, destination_port, known", [
    ("66.9.149.187", "161.142.100.80", 2794, 1766, 0x51CCC178),
    ("199.92.111.2", "65.69.140.83", 14230, 4739, 0xC626B0EA),
    ("24.19.198.95", "12.22.207.184", 12898, 38024, 0x5C2B394A),
    ("38.27.205.30", "209.142.163.6", 48228, 2217, 0xAFC7327F),
    ("153.39.163.191", "202.188.127.2", 44251, 1303, 0x10E828A2)])
def test_dpdk_has_the_published_vectors(source, destination, source_port, destination_port, known):
    ends = int(ipaddress.ip_address(source)), int(ipaddress.ip_address(destination)), source_port, destination_port
    assert shim.lib.shim_softrss(KEY, *ends) == toeplitz(make_tables(KEY), *ends) == known


@generated
@given(WORD, WORD, PORT, PORT, st.binary(min_size=SHORTEST_KEY, max_size=52))
def test_ours_is_dpdks_under_any_key(source, destination, source_port, destination_port, key):
    ends = source, destination, source_port, destination_port
    assert toeplitz(make_tables(key), *ends) == shim.lib.shim_softrss(key, *ends)
