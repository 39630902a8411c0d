"""Interfaces whose frames nobody but us finishes."""
from pyroute2.ethtool.ioctl import IoctlEthtool


def without_checksum_offload(interface):
    """Have the kernel fill in TCP checksums itself: behind a veth or a TAP there is no hardware that would.

    It ends segmentation offload too, so that no frame is longer than the MTU. Called inside the namespace.
    """
    ethtool = IoctlEthtool(interface)
    features = ethtool.get_features()
    features["tx-checksum-ip-generic"] = False
    ethtool.set_features(features)
