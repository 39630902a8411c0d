"""Target states, groups and passive health, through the whole loop on virtual time."""
import pytest

from pipeline.errors import RunError
from pipeline.target_states import TargetStates
from tcp.proxy import NUMBER, PATH, SERVICE, TURNS, close, handshake, one_worker, settings

GROUPED = 7100
GROUPS = {"name": '"grouped"', "listen": f'"{SERVICE}:{GROUPED}"', "select": '"http_path"', "targets": '["a"]',
          "rules": '[{match = "/a", target = "a"}, {match = "/bc", group = "bc"}]', "default": '"rest"',
          "groups": '[{name = "bc", targets = ["b", "c"]}, {name = "rest", targets = ["c"]}]'}
grouped = settings(services=(GROUPS,))


def states_of(proxy):
    """Returns the TargetStates of a proxy's workers."""
    return TargetStates(proxy.configuration, proxy.workers, lambda line: None)


def turns_row(proxy):
    """Returns the row of the service TURNS."""
    return [service.listen.port for service in proxy.configuration.services].index(TURNS)


def ask(proxy, service, data):
    """Returns a client that has sent its first payload, its target chosen."""
    client = proxy.client(service)
    handshake(client)
    client.send("PA", data)
    return client


def served(proxy, service, data, name):
    """A whole connection, which `name` gets."""
    client = ask(proxy, service, data)
    server = proxy.accept(name)
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=data)
    server.send("A")
    client.expect("A")
    return client, server


@pytest.mark.parametrize("state", ["down", "drain", "maintenance"])
def test_a_target_that_is_not_up_gets_no_connection(proxy, state):
    states_of(proxy).set("b", state)
    for name in "acac":
        served(proxy, TURNS, b"x", name)


def test_a_drained_target_keeps_its_connections_and_comes_back(proxy):
    states = states_of(proxy)
    pairs = [served(proxy, TURNS, b"x", name) for name in "abc"]
    states.set("b", "drain")
    for name in "ac":
        served(proxy, TURNS, b"x", name)
    pairs[1][0].send("PA", b"go on")
    pairs[1][1].expect("PA", data=b"go on")
    close(*pairs[1])
    states.set("b", "up")
    assert {target["id"]: target["state"] for target in states.listed()["targets"]}["b"] == "up"
    served(proxy, TURNS, b"x", "a")
    served(proxy, TURNS, b"x", "b")


def test_maintenance_resets_its_connections_where_that_is_configured(proxy):
    pairs = {name: served(proxy, TURNS, b"x", name) for name in "abc"}
    states = states_of(proxy)
    states.configuration = proxy.configuration.model_copy(
        update={"health": proxy.configuration.health.model_copy(update={"release": "reset"})})
    states.set("b", "maintenance")
    proxy.wait(0.1)
    pairs["b"][0].expect("RA")
    pairs["b"][1].expect("RA")
    for name in "ac":
        pairs[name][0].send("PA", b"go on")
        pairs[name][1].expect("PA", data=b"go on")


def test_what_the_payload_names_is_refused_while_it_is_drained(proxy):
    states_of(proxy).set("b", "drain")
    client = ask(proxy, NUMBER, b"1")
    client.expect("RA", seq=1)


def test_the_default_stands_in_for_a_target_that_is_down(proxy):
    states_of(proxy).set("a", "down")
    served(proxy, PATH, b"GET /a HTTP/1.1\r\n\r\n", "c")


def test_where_all_are_down_the_client_is_refused(proxy):
    states = states_of(proxy)
    for name in "abc":
        states.set(name, "down")
    ask(proxy, TURNS, b"x").expect("RA", seq=1)


def test_who_is_no_target_and_what_is_no_state_is_said(proxy):
    with pytest.raises(RunError, match='"x" is no target of this engine'):
        states_of(proxy).set("x", "down")
    with pytest.raises(RunError, match='"off" is no state; it must be one of up, down, drain, maintenance'):
        states_of(proxy).set("a", "off")


def test_a_check_that_fails_yields_to_the_operator(proxy):
    states = states_of(proxy)
    states.checked("a", "connection refused")
    assert states.told("a") == {"id": "a", "state": "down", "why": "check: connection refused"}
    states.set("a", "drain")
    states.checked("a", None)
    assert states.told("a")["state"] == "drain" and proxy.state.targets.states[0] == 2


@grouped
def test_a_rule_leads_to_a_group_in_which_its_own_kernel_chooses(proxy):
    for name in "bcbc":
        served(proxy, GROUPED, b"GET /bc HTTP/1.1\r\n\r\n", name)
    served(proxy, GROUPED, b"GET /a HTTP/1.1\r\n\r\n", "a")


@grouped
def test_the_default_group_takes_what_matches_nothing_and_what_has_nobody_left(proxy):
    served(proxy, GROUPED, b"GET /x HTTP/1.1\r\n\r\n", "c")
    states = states_of(proxy)
    states.set("a", "down")
    served(proxy, GROUPED, b"GET /a HTTP/1.1\r\n\r\n", "c")
    states.set("c", "down")
    served(proxy, GROUPED, b"GET /bc HTTP/1.1\r\n\r\n", "b")
    ask(proxy, GROUPED, b"GET /x HTTP/1.1\r\n\r\n").expect("RA", seq=1)


@grouped
def test_of_a_group_one_that_refuses_is_replaced_by_another_of_it(proxy):
    client = ask(proxy, GROUPED, b"GET /bc HTTP/1.1\r\n\r\n")
    proxy.accept("b").send("RA", seq=0, ack=1)
    proxy.accept("c").send("RA", seq=0, ack=1)
    client.expect("RA", seq=1)


@grouped
def test_a_client_that_says_nothing_gets_the_default_group_when_its_time_is_over(proxy):
    client = proxy.client(GROUPED)
    handshake(client)
    proxy.wait(30.2)
    server = proxy.accept("c")
    server.send("SA")
    server.expect("A", seq=1, ack=1)


def fail_in_a_row(proxy, times, refuse=True):
    """The first of three targets fails so many connections, which the next in turn takes."""
    for _ in range(times):
        proxy.state.selection.memory[turns_row(proxy), 0] = 0
        client = ask(proxy, TURNS, b"x")
        first = proxy.accept("a")
        if refuse:
            first.send("RA", seq=0, ack=1)
        else:
            proxy.wait(10.1)
            for _ in range(3):
                first.expect("S", seq=0)
        second = proxy.accept("b")
        second.send("SA")
        second.expect("PA", data=b"x")
        second.send("A")
        client.expect("A")


@one_worker
@pytest.mark.parametrize("refuse", [True, False], ids=["refusing", "silent"])
def test_three_failures_in_a_row_and_no_client_meets_it_until_one_is_let_try(proxy, refuse):
    proxy.state.targets.health[:2] = 3, 30
    fail_in_a_row(proxy, 3, refuse)
    assert proxy.state.targets.until[0] > 0 and states_of(proxy).told("a")["state"] == "down"
    proxy.state.selection.memory[turns_row(proxy), 0] = 0
    for name in "bcbc":
        served(proxy, TURNS, b"x", name)
    proxy.wait(0.35)
    proxy.state.selection.memory[turns_row(proxy), 0] = 0
    ask(proxy, TURNS, b"x")
    tried = proxy.accept("a")
    proxy.state.selection.memory[turns_row(proxy), 0] = 0
    served(proxy, TURNS, b"x", "b")
    tried.send("SA")
    tried.expect("PA", data=b"x")
    assert proxy.state.targets.until[0] == 0 and states_of(proxy).told("a")["state"] == "up"
    proxy.state.selection.memory[turns_row(proxy), 0] = 0
    served(proxy, TURNS, b"x", "a")


@one_worker
def test_a_success_in_between_ends_the_row(proxy):
    proxy.state.targets.health[:2] = 3, 500
    for _ in range(3):
        fail_in_a_row(proxy, 2)
        proxy.state.selection.memory[turns_row(proxy), 0] = 0
        served(proxy, TURNS, b"x", "a")
    assert proxy.state.targets.until[0] == 0
