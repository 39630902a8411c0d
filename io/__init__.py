"""Where packets come from and go to: DPDK devices, recordings, memory; and packet memory as Python sees it.

`dpdk` has the environment, pools and ports of DPDK; `memory_port` and `pcap_port` have ports without it;
`burst` is what a port's `rx` returns and its `tx` takes.
"""
