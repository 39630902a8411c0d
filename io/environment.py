"""DPDK's environment (EAL): started once a process, before any pool or port."""
import atexit
import contextlib
import os
import pathlib
import re
import threading

from .shim import LOG_LEVELS, DpdkError, ask, ffi, lib

PCI_ADDRESS = re.compile(r"([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
PREFIX = "proxy-pipeline"
"""Start of EAL's file prefix, which keeps engines apart from each other; the process's id follows."""
LCORES = re.compile(r"(\d+)(?:@(\d+|\([\d,-]+\)))?(?:,(?!$)|$)")
"""One lcore, or more with commas between: "0@1", "0@(0,1),1@3"; a part of what EAL's --lcores takes."""
_lock = threading.Lock()
_state = {"environment": None, "used": False}


def free_hugepages():
    """Returns how many MiB of free hugepages of the default size there are (/proc/meminfo)."""
    text = pathlib.Path("/proc/meminfo").read_text()
    values = {key: int(rest.split()[0]) for key, rest in re.findall(r"^(\w+): *(\d+.*)$", text, re.MULTILINE)}
    return values.get("HugePages_Free", 0) * values.get("Hugepagesize", 0) // 1024


def is_pci_address(device):
    """Returns whether a device's name (what stands before the first comma) is a PCI address."""
    return PCI_ADDRESS.fullmatch(device.split(",")[0]) is not None


def check_lcores(lcores):
    """Raises DpdkError unless `lcores` names lcores on CPUs that are there; EAL would print its usage on stdout."""
    place = 0
    while place < len(lcores):
        item = LCORES.match(lcores, place)
        if item is None:
            break
        for cpu in map(int, re.findall(r"\d+", item[2] or item[1])):
            if cpu not in os.sched_getaffinity(0):
                raise DpdkError(f"lcores = {lcores!r}: CPU {cpu} is not one of those that this process may use")
        place = item.end()
    if not lcores or place < len(lcores):
        raise DpdkError(f"lcores = {lcores!r}: lcores with their CPUs are expected, such as 0@1 or 0@(0,1),1@3")


def sweep(folder):
    """Removes what engines that were killed have left in DPDK's runtime folder: empty folders named after their ids."""
    for left in pathlib.Path(folder).glob(f"{PREFIX}-*"):
        if not pathlib.Path("/proc", left.name.rpartition("-")[2]).exists():
            with contextlib.suppress(OSError):  # another user's, or not empty: not ours to take
                left.rmdir()


class Environment:
    """EAL of this process. Raises DpdkError (one sentence) when it does not start; it cannot be started twice.

    `memory`: MiB for pools, rings and queues; taken from hugepages where enough are free, else from ordinary
    pages. `pci`: addresses of the NICs to take (with their device arguments, if any); no other is touched.
    `lcores`: EAL's --lcores; by default one lcore that may run wherever the calling thread may. `log_level`: one
    of LOG_LEVELS; DPDK's log goes to standard error. `hugepages`: True or False insists on one of the two.
    https://doc.dpdk.org/guides-22.11/linux_gsg/linux_eal_parameters.html
    """

    def __init__(self, memory=512, pci=(), lcores=None, log_level="error", hugepages=None, file_prefix=None):
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 64:
            raise DpdkError(f"memory = {memory!r}: DPDK needs a whole number of MiB, 64 or more")
        if log_level not in LOG_LEVELS:
            raise DpdkError(f"log_level = {log_level!r}: one of {', '.join(LOG_LEVELS)} is expected")
        for address in pci:
            if not is_pci_address(address):
                raise DpdkError(f"pci = {address!r}: a PCI address such as 0000:01:00.0 is expected")
        if hugepages and free_hugepages() < memory:
            raise DpdkError(f"hugepages = true: {free_hugepages()} MiB of free hugepages are there, {memory} are "
                            f"needed; write a larger number to /proc/sys/vm/nr_hugepages")
        if lcores is not None:
            check_lcores(lcores)
        if file_prefix is not None and not re.fullmatch(r"[\w.-]{1,64}", file_prefix):
            raise DpdkError(f"file_prefix = {file_prefix!r}: letters, digits and _ . - are expected")
        self.memory = memory
        self.pci = tuple(pci)
        self.hugepages = free_hugepages() >= memory if hugepages is None else bool(hugepages)
        self.file_prefix = file_prefix or f"{PREFIX}-{os.getpid()}"
        self.ports, self.pools = [], []
        with _lock:
            if _state["used"]:
                raise DpdkError("DPDK's environment has been started in this process before, and starts only once")
            _state["used"] = True
            self._start(lcores, log_level)
            _state["environment"] = self
        atexit.register(self.close)

    def arguments(self, lcores, log_level):
        """Returns EAL's command line (list of str)."""
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        memory = (["--in-memory", "--single-file-segments"] if self.hugepages
                  else ["--no-huge", "-m", str(self.memory), "--no-shconf"])
        devices = [word for address in self.pci for word in ("-a", address)] or ["--no-pci"]
        return ["proxy-pipeline", *memory, *devices, "--no-telemetry", "--file-prefix", self.file_prefix,
                "--lcores", lcores or f"0@({cores})", "--log-level", log_level]

    def _start(self, lcores, log_level):
        words = [ffi.new("char[]", word.encode()) for word in self.arguments(lcores, log_level)]
        # EAL pins the thread that starts it to an lcore; who started the engine did not ask for that.
        affinity = os.sched_getaffinity(0)
        lib.shim_log_start(LOG_LEVELS[log_level])
        try:
            ask("DPDK's environment does not start", lib.shim_environment_start, len(words), ffi.new("char *[]", words))
        finally:
            os.sched_setaffinity(0, affinity)
        self.runtime_folder = ffi.string(lib.shim_runtime_folder()).decode()
        sweep(os.path.dirname(self.runtime_folder))

    @property
    def hertz(self):
        """Ticks of the time-stamp counter in a second."""
        return lib.shim_hertz()

    @property
    def running(self):
        """Whether EAL runs still."""
        return _state["environment"] is self

    def close(self):
        """Closes all ports, frees all pools and ends EAL; workers must have stopped. Does nothing the second time."""
        with _lock:
            if _state["environment"] is not self:
                return
            _state["environment"] = None
        for held in [*reversed(self.ports), *self.pools]:
            held.close()
        lib.shim_environment_stop()
        with contextlib.suppress(OSError):  # another process's files in it, or never made
            os.rmdir(self.runtime_folder)
            # An ordinary user's /tmp/dpdk, left behind, would keep all others from starting DPDK.
            os.rmdir(os.path.dirname(self.runtime_folder))
        atexit.unregister(self.close)


def running_environment():
    """Returns the Environment of this process; raises DpdkError if none has been started."""
    if _state["environment"] is None:
        raise DpdkError("DPDK's environment is not running: an Environment comes before pools and ports")
    return _state["environment"]


@contextlib.contextmanager
def registered_thread():
    """Makes the calling thread known to DPDK for the length of a `with`, so that pools keep a cache for it.

    Yields its lcore number. A worker that runs without this works too, only slower.
    """
    running_environment()
    lcore = ask("this thread cannot be registered with DPDK", lib.shim_thread_register)
    try:
        yield lcore
    finally:
        lib.shim_thread_unregister()
