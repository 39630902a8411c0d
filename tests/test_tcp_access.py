"""Allow and deny lists: a SYN of a source that is denied costs no state, and is dropped or answered with a RST."""
import pytest

from pipeline import configuration
from pipeline.access_lists import SPARE_BLOCKS, reload_lists
from pipeline.errors import ConfigurationError, RunError
from pipeline.kernels.access import RESETS
from tcp.proxy import SERVICE, TURNS, close, configuration_text, connect, one_worker, settings

LISTS = {8101: {"deny": ["10.1.0.0/24"]}, 8102: {"allow": ["10.1.0.0/24"]}, 8103: {"allow": ["10.9.0.0/16"]},
         8104: {"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/24"]}, 8105: {"allow": ["10.1.0.0/24"], "deny": ["10.0.0.0/8"]}}
"""Lists by the port of their service. Clients are in 10.1.0.0/24."""
SERVICES = [{"name": f'"listed-{port}"', "listen": f'"{SERVICE}:{port}"', "targets": '["a"]',
             **{key: str(value).replace("'", '"') for key, value in lists.items()}} for port, lists in LISTS.items()]


@settings(services=SERVICES)
def test_the_longest_prefix_of_a_services_lists_decides(proxy):
    for port in (8101, 8103, 8104):
        client = proxy.client(port)
        client.send("S")
        client.nothing()
    assert proxy.drops() == {"denied_by_service": 3} and proxy.count("opened") == 0
    for port in (8102, 8105, TURNS):
        client = proxy.client(port)
        client.send("S")
        client.expect("SA", seq=0, ack=1)
    assert proxy.count("opened") == 3


@settings(services=SERVICES)
def test_a_connection_of_an_allowed_source_is_like_any_other(proxy):
    client = proxy.client(8105)
    close(client, connect(proxy, client))
    assert proxy.drops() == {}


@settings(services=SERVICES, access={"deny": '["10.1.0.0/25"]'})
def test_the_engines_lists_deny_for_every_service(proxy):
    for port in (8102, TURNS):
        client = proxy.client(port)
        client.send("S")
        client.nothing()
    assert proxy.drops() == {"denied_by_engine": 2} and proxy.count("opened") == 0


@settings(access={"deny": '["10.1.0.0/25"]'})
def test_a_syn_to_no_service_is_refused_as_ever(proxy):
    client = proxy.client(1234)
    client.send("S")
    client.expect("RA", ack=1)
    assert proxy.drops() == {}


@one_worker
@settings(access={"deny": '["10.1.0.0/25"]'})
def test_who_is_denied_may_get_a_rst(proxy):
    proxy.state.access.settings[RESETS] = 1  # as `denied = "reset"` does where no service drops strays
    client = proxy.client()
    client.send("S")
    client.expect("RA", ack=1)
    assert proxy.count("denied_by_reset") == 1 and proxy.count("opened") == 0 and proxy.drops() == {}


@pytest.mark.parametrize("lists, sentence", [
    ({"deny": '["10.1.0.1/24"]'}, 'the network is "10.1.0.0/24"'),
    ({"deny": '["10.1.0.0/24"]', "allow": '["10.1.0.0/24"]'}, "lists 10.1.0.0/24, which allow lists as well"),
    ({"deny": '["file:listed.txt"]'}, 'names a file whose line 3, "10.1.0.7", must be an IPv4 network'),
    ({"deny": '["file:absent.txt"]'}, "names no file"),
    ({"denied": '"reset"'}, "keeps the resets back"),
])
def test_what_is_wrong_in_a_list_is_said(tmp_path, lists, sentence):
    (tmp_path / "listed.txt").write_text("# whom we deny\n10.9.0.0/16\n10.1.0.7\n")
    with pytest.raises(ConfigurationError, match=sentence.replace("(", r"\(")):
        configuration.parse(configuration_text({}, {}, access=lists), str(tmp_path / "engine.toml"))


def test_a_file_lists_a_prefix_a_line(tmp_path):
    (tmp_path / "listed.txt").write_text("# whom we deny\n\n10.9.0.0/16  # a network\n10.1.0.7/32\n")
    made = configuration.parse(configuration_text({}, {}, access={"deny": '["file:listed.txt"]'}), str(tmp_path / "engine.toml"))
    assert list(map(str, made.access.denied_sources)) == ["10.9.0.0/16", "10.1.0.7/32"]


@settings(services=SERVICES, access={"deny": '["10.1.0.0/25"]'})
def test_lists_are_taken_anew_in_a_running_engine(proxy):
    client = proxy.client(8102)
    client.send("S")
    client.nothing()
    others = [dict(each, allow='["10.1.0.9/32"]') if "8102" in each["name"] else each for each in SERVICES]
    for deny, allowed in (("10.1.0.64/26", "10.1.0.9"), ("10.1.0.0/29", "10.1.0.9"), ("10.9.0.0/16", "10.1.0.9")):
        new = configuration.parse(configuration_text({}, {}, services=others, access={"deny": f'["{deny}"]'}), "again.toml")
        told = reload_lists(proxy.workers, proxy.configuration, new, lambda: None)
        assert told["prefixes"] == 8
        for address, answered in ((allowed, True), ("10.1.0.10", False)):
            client = proxy.client(8102, address)
            client.send("S")
            if answered:
                client.expect("SA", seq=0, ack=1)
            else:
                client.nothing()


@settings(services=SERVICES)
def test_lists_for_other_services_or_without_room_are_refused_and_the_old_stay(proxy):
    fewer = configuration.parse(configuration_text({}, {}, services=SERVICES[1:]), "again.toml")
    with pytest.raises(RunError, match="the services must be listed-8101, listed-8102"):
        reload_lists(proxy.workers, proxy.configuration, fewer, lambda: None)
    many = ", ".join(f'"11.{n >> 8}.{n & 255}.1/32"' for n in range(SPARE_BLOCKS + 1))
    more = configuration.parse(configuration_text({}, {}, services=SERVICES, access={"deny": f"[{many}]"}), "again.toml")
    with pytest.raises(RunError, match="longer than 24 bits in 4097 networks .* room for 4096"):
        reload_lists(proxy.workers, proxy.configuration, more, lambda: None)
    client = proxy.client(8101)
    client.send("S")
    client.nothing()


@settings()
def test_an_engine_without_lists_takes_none(proxy):
    with pytest.raises(RunError, match="started without allow and deny"):
        reload_lists(proxy.workers, proxy.configuration, proxy.configuration, lambda: None)
