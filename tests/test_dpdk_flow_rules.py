"""Steering rules by rte_flow on the devices that this machine can have: what they refuse, they refuse in a sentence.

No device here takes rules and steers by them. net_failsafe whose device has not come yet takes any: on it they are made and
taken off. What a NIC does by them is the NIC model's to show.
"""
import contextlib

import pytest
from dpdk_bed import MBUFS, check_traffic, ip, is_root, kernel_socket, veth

from pipeline.io.steering import SteeringRule, rules_by_address, rules_by_port
from pipeline.network_namespace import entered

dpdk = pytest.importorskip("pipeline.io.dpdk", reason="DPDK is not installed", exc_type=ImportError)
flow_rules = pytest.importorskip("pipeline.io.flow_rules", reason="DPDK is not installed", exc_type=ImportError)
needs_root = pytest.mark.skipif(not is_root(), reason="needs root: network namespaces and their devices")

ABSENT = "net_failsafe0,mac=02:00:00:00:00:09,exec(echo)"
"""A device that takes rules: it keeps them for one that may come, and `echo` names none."""
BY_PORT = rules_by_port(0, 0x0400, [0, 1])
BY_ADDRESS = rules_by_address(0, [0x0A000001, 0x0A000002])


@contextlib.contextmanager
def opened(device, pool, namespace, queues=2):
    """A port on a device, its interface in the namespace."""
    with entered(namespace):
        port = dpdk.Port(device, "servers", pool, queues=queues)
    with contextlib.closing(port):
        yield port


def refusal(call, *arguments):
    """Returns the sentence with which a call is refused."""
    with pytest.raises(dpdk.DpdkError) as refused:
        call(*arguments)
    return str(refused.value)


@pytest.mark.parametrize("rule, words", [
    (SteeringRule(0, "destination_port", 0x0400, 0xFC00, 1), "TCP to ports 0x0400 under mask 0xfc00 goes to queue 1"),
    (SteeringRule(0, "destination_port", 8080, 0xFFFF, 0), "TCP to port 8080 goes to queue 0"),
    (SteeringRule(0, "destination_address", 0x0A000001, 0xFFFFFFFF, 3), "TCP to 10.0.0.1 goes to queue 3"),
    (SteeringRule(0, "destination_address", 0x0A000000, 0xFFFF0000, 2),
     "TCP to addresses 10.0.0.0 under mask 255.255.0.0 goes to queue 2")])
def test_a_rule_in_words(rule, words):
    assert flow_rules.in_words(rule) == words


@needs_root
@pytest.mark.parametrize("device, rules, reason", [
    ("net_af_packet0,iface=inner", BY_PORT, "TCP to ports 0x0000 under mask 0x0400 goes to queue 0: Function not implemented"),
    ("net_af_xdp0,iface=inner", BY_ADDRESS, "TCP to 10.0.0.1 goes to queue 0: Function not implemented"),
    ("net_null0", BY_ADDRESS, "TCP to 10.0.0.1 goes to queue 0: Function not implemented"),
    ("net_failsafe0,dev(net_null7)", BY_PORT, "TCP to ports 0x0000 under mask 0x0400 goes to queue 0: Function not implemented")])
def test_devices_without_rules_say_what_to_use_instead(pool, namespace, device, rules, reason):
    veth(queues=2)
    with opened(device, pool, namespace) as port:
        sentence = f"port 'servers' ({device}) refuses the rule that {reason}"
        assert flow_rules.accepts(port, rules) == sentence
        assert refusal(flow_rules.FlowRules, [port], rules) == (
            f'{sentence}; flow_steering = "rss" or "software" does without rules')


@needs_root
@pytest.mark.parametrize("rules", [BY_PORT, BY_ADDRESS])
def test_tap_refuses_what_it_found_valid_and_works_on(pool, namespace, rules):
    with opened("net_tap0,iface=tapped", pool, namespace, queues=2) as port:
        reason = flow_rules.accepts(port, rules)
        if reason is None:
            pytest.skip("this kernel has cls_flower and act_skbedit")
        assert reason.startswith(f"port 'servers' (net_tap0,iface=tapped) refuses the rule that {flow_rules.in_words(rules[0])}: ")
    with opened("net_tap1,iface=again", pool, namespace, queues=1) as port:
        assert flow_rules.accepts(port, rules[:1])
        ip("link", "set", "again", "up")
        with contextlib.closing(kernel_socket("again")) as kernel:
            check_traffic(port, kernel, count=20)
    assert pool.available == MBUFS


class Spy:
    """The shim's functions, with the calls of those about rules noted."""

    def __init__(self, lib):
        self._lib, self.calls = lib, []

    def __getattr__(self, name):
        real = getattr(self._lib, name)
        if not name.startswith("shim_flow_"):
            return real

        def noted(*arguments):
            result = real(*arguments)
            self.calls.append((name.removeprefix("shim_flow_"), arguments[:-2], result))
            return result
        return noted


@pytest.fixture
def calls(monkeypatch):
    """What is asked of rte_flow, in order: name, arguments, result."""
    spy = Spy(flow_rules.lib)
    monkeypatch.setattr(flow_rules, "lib", spy)
    return spy.calls


def test_rules_are_validated_made_and_taken_off(pool, calls):
    with contextlib.closing(dpdk.Port(ABSENT, "servers", pool, queues=2)) as port:
        with contextlib.closing(flow_rules.FlowRules([port], BY_PORT)) as installed:
            assert [(name, arguments[1:]) for name, arguments, _ in calls] == [
                (name, (0, value, 0x0400, queue)) for name in ("validate", "create") for value, queue in ((0, 0), (0x0400, 1))]
            made = [handle for name, _, handle in calls if name == "create"]
            assert all(handle > 0 for handle in made) and len(set(made)) == 2
            del calls[:]
        assert calls == [("destroy", (port.number, handle), 0) for handle in reversed(made)]
        installed.close()
        assert len(calls) == 2
        assert flow_rules.accepts(port, BY_ADDRESS) is None
        assert [name for name, _, _ in calls[2:]] == ["validate"] * 2 + ["create"] * 2 + ["destroy"] * 2


@needs_root
def test_a_later_refusal_takes_the_earlier_rules_off(pool, namespace, calls):
    rules = [*BY_PORT, *(rule._replace(port=1) for rule in BY_PORT)]
    with contextlib.closing(dpdk.Port(ABSENT, "one", pool, queues=2)) as one, \
            opened("net_tap0,iface=tapped", pool, namespace) as two:
        if flow_rules.accepts(two, BY_PORT) is None:
            pytest.skip("this kernel has cls_flower and act_skbedit")
        del calls[:]
        assert "port 'servers' (net_tap0" in refusal(flow_rules.FlowRules, [one, two], rules)
        made = [handle for name, _, handle in calls if name == "create" and handle > 0]
        assert len(made) == 2 and [call[1:] for call in calls if call[0] == "destroy"] == [
            ((one.number, handle), 0) for handle in reversed(made)]


def test_what_is_refused_by_validation_is_never_made(pool, calls):
    with contextlib.closing(dpdk.Port(ABSENT, "one", pool, queues=2)) as one, \
            contextlib.closing(dpdk.Port("net_null0", "two", pool, queues=2)) as two:
        rules = [*BY_PORT, BY_PORT[0]._replace(port=1)]
        assert flow_rules.accepts(two, rules[2:]) in refusal(flow_rules.FlowRules, [one, two], rules)
    assert [name for name, _, _ in calls] == ["validate"] * 4


def test_rules_of_a_port_that_has_closed_are_gone(pool, calls):
    port = dpdk.Port(ABSENT, "servers", pool, queues=2)
    installed = flow_rules.FlowRules([port], BY_PORT)
    port.close()
    del calls[:]
    installed.close()
    assert not calls


def test_a_rule_for_a_queue_that_is_not_there_is_refused(pool):
    with contextlib.closing(dpdk.Port(ABSENT, "servers", pool, queues=2)) as port:
        assert flow_rules.accepts(port, rules_by_address(0, [1, 2, 3])).endswith(
            "has no queue for the rule that TCP to 0.0.0.3 goes to queue 2: queues = 2")
