"""What the user writes of a device, and the devices of DPDK's that are made of it: one, or one for each queue."""
import re

VIRTUAL_DEVICE = re.compile(r"net_[a-z_]*[a-z]\w*")
QUEUES_ARGUMENT = {"net_af_packet": "qpairs", "net_af_xdp": "queue_count"}
"""What a virtual device calls the number of its queues, where it has only one unless told."""


def driver_of(device):
    """Returns the driver of a virtual device by its devargs: "net_tap" of "net_tap0,iface=dt0"."""
    return device.split(",")[0].rstrip("0123456789")


def argument(device, key):
    """Returns what devargs have as `key` (str), or None."""
    found = re.search(rf",{key}=([^,]+)", device)
    return found and found[1]


def first_queue(device):
    """Returns the first queue of the interface that the devargs of net_af_xdp name; what is no number DPDK will refuse."""
    found = argument(device, "start_queue") or ""
    return int(found) if found.isdigit() else 0


def split_by_queue(device, queues):
    """Returns the devargs (list of str) of the devices that together have `queues` queues of the interface or NIC `device`.

    net_af_packet is told how many it shall open. Of net_af_xdp each queue of the interface is a device of its own: with
    queue_count above 1 it asks for combined channels, and a veth has none (DPDK 22.11). All others make their queues when
    they are configured, and what the user has said of queues stays as it is.
    https://doc.dpdk.org/guides-22.11/nics/af_xdp.html, https://doc.dpdk.org/guides-22.11/nics/af_packet.html
    """
    driver = driver_of(device)
    if queues == 1 or driver not in QUEUES_ARGUMENT or argument(device, QUEUES_ARGUMENT[driver]):
        return [device]
    if driver == "net_af_packet":
        return [f"{device},qpairs={queues}"]
    name, _, rest = device.partition(",")
    rest = ",".join(word for word in rest.split(",") if not word.startswith("start_queue="))
    first = first_queue(device)
    names = [name, *(f"{name}_{queue}" for queue in range(1, queues))]
    return [f"{each},{rest},start_queue={first + queue},queue_count=1" for queue, each in enumerate(names)]
