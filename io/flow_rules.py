"""Steering rules on a NIC by rte_flow: what a server sends to a worker's source ports, or address, comes to its queue.

The rules are `steering.SteeringRule`s. https://doc.dpdk.org/guides-22.11/prog_guide/rte_flow.html
"""
import contextlib
import ipaddress

from .environment import running_environment
from .shim import LOG_LEVELS, DpdkError, ffi, lib, recorded_log

NUMBERS = {"destination_port": lib.SHIM_FLOW_DESTINATION_PORT, "destination_address": lib.SHIM_FLOW_DESTINATION_ADDRESS}
INSTEAD = 'flow_steering = "rss" or "software" does without rules'
ROOM = 512


def in_words(rule):
    """Returns what a rule says: "TCP to ports 0x0400 under mask 0xfc00 goes to queue 1"."""
    if rule.field == "destination_address":
        value, mask = ipaddress.ip_address(rule.value), ipaddress.ip_address(rule.mask)
        where = f"{value}" if rule.mask == 0xFFFFFFFF else f"addresses {value} under mask {mask}"
    else:
        where = f"port {rule.value}" if rule.mask == 0xFFFF else f"ports {rule.value:#06x} under mask {rule.mask:#06x}"
    return f"TCP to {where} goes to queue {rule.queue}"


def _ask(function, *arguments):
    """Calls a function of rte_flow in the shim; returns its result and, below zero, the device's words (str)."""
    said = ffi.new("char[]", ROOM)
    with recorded_log() as take:
        result = function(*arguments, said, ROOM)
        if lib.shim_log_level() <= LOG_LEVELS["error"]:  # drivers log what they then say in the error too
            take()
    if result >= 0:
        return result, ""
    return result, ffi.string(said).decode() or ffi.string(lib.shim_error_text(result)).decode()


def _ask_for(function, port, rule, hint):
    """Asks a port for a rule; returns the result. Raises DpdkError when it refuses."""
    if rule.queue >= port.queues:
        raise DpdkError(f"port {port.name!r} ({port.device}) has no queue for the rule that {in_words(rule)}: queues = "
                        f"{port.queues}")
    result, reason = _ask(function, port.number, NUMBERS[rule.field], rule.value, rule.mask, rule.queue)
    if result < 0:
        raise DpdkError(f"port {port.name!r} ({port.device}) refuses the rule that {in_words(rule)}: {reason}{hint}")
    return result


def _destroy(port, rule, handle):
    """Takes a rule off a port that is still open; with a port that is not it has gone already."""
    if port in running_environment().ports:
        result, reason = _ask(lib.shim_flow_destroy, port.number, handle)
        if result < 0:
            raise DpdkError(f"port {port.name!r} ({port.device}) keeps the rule that {in_words(rule)}: {reason}")


def _install(wanted, hint=""):
    """Installs rules, pairs of Port and rule; returns an ExitStack that takes them off. All are validated before any is made.

    Raises DpdkError when one is refused, with those before it taken off.
    """
    for port, rule in wanted:
        _ask_for(lib.shim_flow_validate, port, rule, hint)
    with contextlib.ExitStack() as installed:
        for port, rule in wanted:
            handle = _ask_for(lib.shim_flow_create, port, rule, hint)
            installed.callback(_destroy, port, rule, handle)
        return installed.pop_all()


def accepts(port, rules):
    """Returns None if a device takes these rules, all of them, else the reason (str); `port` is open, and has none afterwards.

    They are installed for a moment: net_tap finds all valid and then refuses to make one (DPDK 22.11, no cls_flower).
    """
    try:
        _install([(port, rule) for rule in rules]).close()
    except DpdkError as refused:
        return str(refused)
    return None


class FlowRules:
    """Rules on the engine's `ports`, installed until `close`; a rule's `port` is a place in `ports`.

    Raises DpdkError, one sentence, when a device refuses one of them; none is left then.
    """

    def __init__(self, ports, rules):
        self._environment = running_environment()
        self._installed = _install([(ports[rule.port], rule) for rule in rules], f"; {INSTEAD}")

    def close(self):
        """Takes the rules off. Does nothing the second time, or when DPDK has ended."""
        installed = self._installed.pop_all()
        if self._environment.running:
            installed.close()
