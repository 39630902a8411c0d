"""The device of a worker with owner tags beside it: `isolation = "checked"`. The same functions as `kernels.memory_device`.

`pipeline.compose` writes what follows the second mark into a loop, instead of importing a device's functions into it, with
these of the chosen device between the marks; as it stands it is over memory ports.
"""
# ports from here
from pipeline.kernels import memory_device as ports

# ports to here
from pipeline.kernels.jit import kernel
from pipeline.kernels.owner_tags import ALLOCATED, FREED, HANDED_OVER, RECEIVED, SENT, TAKEN_OVER, get, give


@kernel
def receive(device, port, mbufs, limit):
    """Receives: what comes is this worker's."""
    count = ports.receive(device.ports, port, mbufs, limit)
    get(device, mbufs, 0, count, RECEIVED)
    return count


@kernel
def transmit(device, port, mbufs, first, count):
    """Sends what is this worker's; what the device does not take stays so."""
    give(device, mbufs, first, count, SENT)
    sent = ports.transmit(device.ports, port, mbufs, first, count)
    get(device, mbufs, first + sent, count - sent, SENT)
    return sent


@kernel
def hand_on(device, ring, mbufs, first, count):
    """Hands over what is this worker's; what has no room stays so."""
    give(device, mbufs, first, count, HANDED_OVER)
    given = ports.hand_over(device.ports, ring, mbufs, first, count)
    get(device, mbufs, first + given, count - given, HANDED_OVER)
    return given


@kernel
def take_over(device, ring, mbufs, limit):
    """Takes over: what comes is this worker's."""
    count = ports.take_over(device.ports, ring, mbufs, limit)
    get(device, mbufs, 0, count, TAKEN_OVER)
    return count


@kernel
def allocate(device, mbufs, count):
    """Allocates: what there is is this worker's."""
    got = ports.allocate(device.ports, mbufs, count)
    get(device, mbufs, 0, got, ALLOCATED)
    return got


@kernel
def free(device, mbufs, count):
    """Frees what is this worker's."""
    give(device, mbufs, 0, count, FREED)
    ports.release(device.ports, mbufs, count)


@kernel
def available(device):
    """Returns how many mbufs are free."""
    return ports.available(device.ports)


@kernel
def pause(device, microseconds):
    """Gives the core away for about `microseconds`."""
    ports.pause(device.ports, microseconds)
