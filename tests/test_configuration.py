"""The configuration: each fault is refused by one sentence that names file, key, value and what would be right."""
import ipaddress
import os
import pathlib

import pytest

from configuration_text import two_networks
from pipeline import configuration
from pipeline.errors import ConfigurationError

CONFIGS = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.toml"))
ADDRESS = ipaddress.IPv4Address

GOOD = two_networks({"name": "test"}, devices=("net_af_packet0,iface=px0", "net_af_packet1,iface=px1"),
                    targets={"a": "10.2.0.11", "b": "10.9.0.12"})

CORE = max(os.sched_getaffinity(0))
TWO, THREE = (f"cores = {[CORE] * workers}\noversubscribe = true" for workers in (2, 3))
"""Lines of [engine] for so many workers, whatever the machine has."""

WITH_BED = GOOD.replace('name = "test"', 'name = "test"\nnetwork_namespace = "test"') + """
[bed]
device = "af_packet"
hosts = [{ name = "c", role = "client", port = "left", address = "10.1.0.2/24" }]
"""


def faults_of(text):
    with pytest.raises(ConfigurationError) as caught:
        configuration.parse(text, "x.toml")
    return caught.value.faults


def changed(text, old, new):
    assert text.count(old) >= 1, old
    return text.replace(old, new, 1)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_ready_configurations_are_valid_and_without_warnings(path):
    loaded = configuration.load(path)
    assert configuration.warnings(loaded) == []
    rings = path.stem.startswith("generator") and all(port.driver == "ring" for port in loaded.ports)
    assert loaded.bed is not None or rings, "a ready configuration runs as it is"


def test_three_configurations_are_ready():
    assert {"demonstration", "one_arm", "two_port"} <= {path.stem for path in CONFIGS}


def test_what_is_left_out_has_a_default():
    loaded = configuration.parse(GOOD, "x.toml")
    assert (loaded.engine.mbufs, loaded.engine.burst, loaded.engine.idle) == (16384, 32, "backoff")
    assert loaded.timeouts.established == 86400
    assert loaded.engine.cores == (max(os.sched_getaffinity(0)),)
    service = loaded.services[0]
    assert (service.binding, service.select, service.default_target) == ("delayed", "round_robin", None)
    assert service.listen == (ADDRESS("10.1.0.1"), 80, 80, 32)


ONE_FAULT = [
    # What a value is by itself.
    ('name = "test"', "brust = 3", 'engine.brust = 3 is not a known key; did you mean "burst"?'),
    ('name = "test"', "burst = 257", "engine.burst = 257 must be a whole number from 1 to 256"),
    ('name = "test"', "burst = 8.0", "engine.burst = 8.0 must be a whole number from 1 to 256"),
    ('name = "test"', "burst = true", "engine.burst = true must be a whole number from 1 to 256"),
    ('name = "test"', "drain_timeout = nan", "engine.drain_timeout = nan must be a number of seconds from 0 to 3600"),
    ('name = "test"', 'detailed_records = "yes"', 'engine.detailed_records = "yes" must be true or false'),
    ('name = "test"', 'idle = "sleep"', 'engine.idle = "sleep" must be one of "backoff", "spin"'),
    ('name = "test"', 'name = "a/b"',
     'engine.name = "a/b" must be a name of 1 to 32 letters, digits, dots, dashes and underscores'),
    ('name = "test"', 'stats_socket = "x.sock"',
     'engine.stats_socket = "x.sock" must be an absolute path of at most 107 bytes'),
    ('name = "test"', 'cores = ["0"]', 'engine.cores[0] = "0" must be the number of a core, such as 1'),
    ("[[routes]]", "[timeouts]\nestablished = 0\n[[routes]]",
     "timeouts.established = 0 must be a number of seconds from 0.05 to 2592000"),
    ('device = "net_af_packet0,iface=px0"', 'device = "eth0 "',
     'ports[0].device = "eth0 " must be DPDK devargs such as "net_af_packet0,iface=eth1", a PCI address such as '
     '"0000:01:00.0", "pcap:FILE" or "ring:NAME"'),
    ('"10.1.0.1/24"', '"10.1.0.1"', 'ports[0].addresses[0] = "10.1.0.1" must be an IPv4 address with the prefix length '
     'of its network, such as "10.1.0.1/24"'),
    ('"10.1.0.1/24"', '"10.1.0.255/24"', 'ports[0].addresses[0] = "10.1.0.255/24" is the broadcast address of '
     "10.1.0.0/24; it must be the address of a host in it"),
    ('["10.1.0.1/24"]', "[]",
     'ports[0].addresses = [] must be a list of one or more addresses such as "10.1.0.1/24"'),
    ('name = "left"', 'name = "left"\nmac = "01:00:5e:00:00:01"', 'ports[0].mac = "01:00:5e:00:00:01" must be a '
     'unicast MAC address, such as "02:00:00:00:00:01"'),
    ('name = "left"', 'name = "left"\nmtu = 9000',
     "ports[0].mtu = 9000 must be a whole number from 576 to 2026 (a frame has to fit in one mbuf)"),
    ('"10.9.0.0/16"', '"10.9.0.1/16"',
     'routes[0].network = "10.9.0.1/16" has bits set behind its prefix; the network is "10.9.0.0/16"'),
    ('"10.2.0.11"', '"fd00::1"', 'targets[0].ip = "fd00::1" must be an IPv4 address of a host, such as "10.1.0.1"'),
    ('"10.2.0.11"', '"224.0.0.1"', 'targets[0].ip = "224.0.0.1" is a multicast address; it must be an IPv4 address of '
     'a host, such as "10.1.0.1"'),
    ('ip = "10.2.0.11"', "", 'targets[0].ip is missing; it must be an IPv4 address of a host, such as "10.1.0.1"'),
    ('id = "a"', 'id = "refuse"', 'targets[0].id = "refuse" is taken: "refuse" stands for no target; it must be '
     "another name"),
    ('"10.1.0.1:80"', '"10.1.0.1"', 'services[0].listen = "10.1.0.1" must be "address:port", such as "10.1.0.1:80", with a '
     'range of ports as "10.1.0.1:8000-8999", or a prefix as "10.1.8.0/24:80"'),
    ('"10.1.0.1:80"', '"10.1.0.1:0"',
     'services[0].listen = "10.1.0.1:0" has a port number that is not from 1 to 65535'),
    ('"10.1.0.1:80"', '"10.1.0.1:90-80"', 'services[0].listen = "10.1.0.1:90-80" has a range of ports that runs backwards; it must be '
     '"address:port", such as "10.1.0.1:80", with a range of ports as "10.1.0.1:8000-8999", or a prefix as "10.1.8.0/24:80"'),
    ('"10.1.0.1:80"', '"10.1.0.1/28:80"',
     'services[0].listen = "10.1.0.1/28:80" has bits set behind its prefix; the network is "10.1.0.0/28"'),
    ('"10.1.0.1:80"', '"10.1.0.0/23:80"', 'services[0].listen = "10.1.0.0/23:80" has the whole network 10.1.0.0/24 of ports[0] in it, '
     "all of whose hosts would be taken for ours; it must be a part of that, or another network that is routed to us"),
    ('"10.1.0.1:80"', '"10.2.0.8/29:80"', 'services[0].listen = "10.2.0.8/29:80" has the address of targets[0] in it (10.2.0.11); '
     "it must be a prefix of addresses that are all the engine's own"),
    ('name = "web"', 'name = "web"\nselect = "round_robbin"', 'services[0].select = "round_robbin" must be one of '
     '"round_robin", "http_path", "http_host", "number_modulo", "at_random", "tls_sni", "tls_alpn", "http2_path", "http2_authority", '
     '"ldap_dn", "postgresql_database", "postgresql_user", "redis_user", "mqtt_client_id", "octets", "weighted_round_robin", '
     '"least_connections", "source_hash", "maglev", "two_choices", or a kernel of '
     'your own as "package.module:function" or "file.py:function"; did you mean "round_robin"?'),
    ('name = "web"', 'name = "web"\nsource_ports = [9, 5]',
     "services[0].source_ports = [9, 5] runs backwards; it must be [lowest, highest], two port numbers from 1 to "
     "65535"),
    ("[engine]", "engines = 1\n[engine]", 'engines = 1 is not a known key; did you mean "engine"?'),
    ('[[services]]\nname = "web"\nlisten = "10.1.0.1:80"\ntargets = ["a", "b"]', "",
     "services is missing; it must be one or more [[services]] tables"),
    ('[engine]\nname = "test"', "engine = 3", "engine = 3 must be a table [engine]"),
    # How the parts fit together.
    ('name = "test"', "cores = []", f"engine.cores = [] must name a core for each worker, such as [{max(os.sched_getaffinity(0))}]"),
    ('name = "test"', f"cores = [{CORE}, {CORE}]", f"engine.cores[1] = {CORE} is already that of cores[0]: two workers would take it "
     "from each other; it must be another one, or oversubscribe must be true (for tests)"),
    ('name = "test"', f"{TWO}\nmbufs = 4160", "engine.mbufs = 4160 must be at least 8320: the ports' rxd and txd and two bursts for "
     "each worker"),
    ('name = "test"', f"{THREE}\ndst_port_mask = 4", "engine.dst_port_mask = 4 tells 2 blocks of ports apart; it must have bits for 3 "
     "workers at least, such as 64512"),
    ('name = "test"', f'{TWO}\nflow_steering = "address"', "services[0].source_addresses must have an address for each of 2 "
     'workers, since engine.flow_steering = "address"'),
    ('name = "test"', 'rss_key = "6d5a"', 'engine.rss_key = "6d5a" must be a key of 40 to 52 octets in lower-case hexadecimal digits, '
     'such as "6d5a56da..."'),
    ('name = "test"', 'flow_steering = "ports"', 'engine.flow_steering = "ports" must be one of "auto", "port", "address", "rss", '
     '"software"'),
    ('name = "test"', "cores = [9999]", f"engine.cores[0] = 9999 is no core of this process; it must be one of "
     f"{sorted(os.sched_getaffinity(0))}"),
    ('name = "test"', "held_bytes = 1000", "engine.held_bytes = 1000 must be a multiple of 64, such as 960"),
    ('name = "test"', "mbufs = 4000",
     "engine.mbufs = 4000 must be at least 4160: the ports' rxd and txd and two bursts"),
    ("[[routes]]", '[kernels]\nlookups = "x"\n[[routes]]',
     'kernels.lookups = "x" is not a known slot; did you mean "lookup"?'),
    ("[[routes]]", '[kernels]\nselect = "x"\n[[routes]]',
     'kernels.select = "x" is not set here; each of [[services]] has a select of its own'),
    ("[[routes]]", '[kernels]\npayload = "x"\n[[routes]]',
     'kernels.payload = "x" is not set here; each of [[services]] has payload_to_target and payload_to_client'),
    ('name = "web"', 'name = "web"\npayload_to_target = "mask_digit"', 'services[0].payload_to_target = "mask_digit" must be '
     'one of "unchanged", "mask_digits", "replace", "refuse_pattern", "count_pattern", "insert_header", "rate_limit", "ldap_guard", or a kernel of your own as "package.module:function" or "file.py:function"; '
     'did you mean "mask_digits"?'),
    ('name = "web"', 'name = "web"\npayload_to_target = "replace"',
     'services[0].payload_to_target = "replace" has to be told more: it must be [[services.payload_rules]] with direction = "to_target" and kernel = "replace"'),
    ('name = "web"', 'name = "web"\npayload_rules = [{direction = "to_target", kernel = "insert_header"}]',
     'services[0].payload_rules[0].header is missing; kernel = "insert_header" needs it: it must be a line of at most 253 ASCII characters such as "X-Forwarded-Proto: http"'),
    ('name = "web"', 'name = "web"\npayload_rules = [{direction = "to_target", kernel = "refuse_pattern", search = "x", replace = "y"}]',
     'services[0].payload_rules[0].replace = "y" is not used by kernel = "refuse_pattern"; it must go'),
    ('name = "web"', 'name = "web"\npayload_rules = [{direction = "to_target", kernel = "refuse_pattern", search = ""}]',
     'services[0].payload_rules[0].search = "" must be a text of 1 to 255 bytes in UTF-8'),
    ('name = "web"', 'name = "web"\npayload_rules = [{direction = "to_target", kernel = "insert_header", header = "no header"}]',
     'services[0].payload_rules[0].header = "no header" must be a line of at most 253 ASCII characters such as "X-Forwarded-Proto: http"'),
    ('name = "web"', 'name = "web"\npayload_rules = [{direction = "to_client", kernel = "insert_header", header = "A: b"}]',
     'services[0].payload_rules[0].direction = "to_client" must be "to_target": kernel = "insert_header" reads what clients send'),
    ('name = "web"', 'name = "web"\npayload_rules = [{direction = "to_client", kernel = "unchanged"}, {direction = "to_client", kernel = "rate_limit", rate = 1, burst = 1}]',
     'services[0].payload_rules[1].kernel = "rate_limit" must be the first of its direction: what "rate_limit" drops comes again, and no other kernel may have seen it'),
    ('name = "web"', 'name = "web"\npayload_to_target = "unchanged"\npayload_rules = [{direction = "to_target", kernel = "unchanged"}]',
     'services[0].payload_to_target = "unchanged" excludes payload_rules with direction = "to_target"; it must be one of them'),
    ('name = "web"', 'name = "web"\npayload_rules = [{direction = "to_target", kernel = "ldap_guard", search = "dc=a"}]',
     'services[0].payload_rules[0].search = "dc=a" and replace belong together; both must be given, or neither'),
    ('name = "right"', 'name = "left"', 'ports[1].name = "left" is already that of ports[0]; it must be another one'),
    ("net_af_packet1", "net_af_packet0", 'ports[1].device = "net_af_packet0,iface=px1" is already opened by ports[0]; '
     "each port needs one of its own"),
    ('"10.2.0.1/24"', '"10.2.0.1/24", "10.1.0.200/25"', 'ports[1].addresses[1] = "10.1.0.200/25" overlaps the network '
     "10.1.0.0/24 of ports[0]; two ports must have networks apart"),
    ('"10.2.0.254"', '"10.3.0.254"', 'routes[0].gateway = "10.3.0.254" is on no network of a port; it must be in '
     "one of 10.1.0.0/24, 10.2.0.0/24"),
    ('"10.2.0.254"', '"10.2.0.1"', 'routes[0].gateway = "10.2.0.1" is the engine\'s own address (ports[1] has it); '
     "it must be a router's"),
    ('"10.2.0.11"', '"10.3.0.11"', 'targets[0].ip = "10.3.0.11" cannot be reached; it must be in a network of a port, '
     "or [[routes]] must lead there"),
    ('"10.2.0.11"', '"10.2.0.255"', 'targets[0].ip = "10.2.0.255" is the broadcast address of 10.2.0.0/24 (ports[1]); '
     "it must be a host's"),
    ('"10.2.0.11"', '"10.1.0.1"', 'targets[0].ip = "10.1.0.1" is the engine\'s own address (ports[0] has it); '
     "it must be a server's"),
    ('"10.2.0.11"', '"10.9.0.12"', 'targets[1].ip = "10.9.0.12" with port = 8080 is already targets[0]; two targets '
     "must differ in ip or port"),
    ('id = "a"', 'id = "a"\nmac = "02:00:00:00:00:01"\nlinux_if = "eth0"',
     'targets[0].linux_if = "eth0" excludes mac; one of the two must go'),
    ('["a", "b"]', '["a", "bb"]', 'services[0].targets[1] = "bb" is not the id of one of [[targets]]; '
     'did you mean "b"?'),
    ('["a", "b"]', '["a", "b", "a"]', 'services[0].targets[2] = "a" is already targets[0] of this service'),
    ('["a", "b"]', '["a"]\ndefault = "b"', 'services[0].default = "b" is not among the targets of this service; it '
     'must be one of them, or "refuse"'),
    ('"10.1.0.1:80"', '"10.1.0.0:80"', 'services[0].listen = "10.1.0.0:80" is the network address of 10.1.0.0/24 '
     "(ports[0]); it must be a host's"),
    *(('name = "web"', f'name = "web"\nbinding = "simple"\n{key} = {value}', f'services[0].{key} = {shown} is not used with binding = '
       '"simple", where the client\'s own handshake goes on to the target; it must go, or binding must be "delayed" or "immediate"')
      for key, value, shown in (("toa", "true", "true"), ("proxy_protocol", '"v1"', '"v1"'))),
    ('name = "web"', 'name = "web"\nbinding = "immediate"\nselect = "number_modulo"', 'services[0].select = '
     '"number_modulo" looks at the payload, which binding = "immediate" does not wait for; it must be "round_robin" or '
     'a kernel of your own, or binding must be "delayed"'),
    ('name = "web"', 'name = "web"\nselect = "http_path"',
     'services[0].rules must have a rule for select = "http_path", such as [{match = "/a", target = "a"}]'),
    ('name = "web"', 'name = "web"\nrules = [{match = "/a", target = "a"}]', 'services[0].rules = [{match = "/a", '
     'target = "a"}] is not used by select = "round_robin"; it must go, or select must be one that looks for it, '
     'such as "http_path" or "tls_sni"'),
    ('name = "web"', 'name = "web"\nselect = "http_path"\nrules = [{match = "a", target = "a"}]',
     'services[0].rules[0].match = "a" must be a path that begins with "/", such as "/a"'),
    ('name = "web"', 'name = "web"\nselect = "http_host"\nrules = [{match = "A.org", target = "a"}, '
     '{match = "a.ORG", target = "b"}]',
     'services[0].rules[1].match = "a.ORG" is already that of rules[0]; it must be another one'),
    ('name = "web"', 'name = "web"\nselect = "http_host"\nrules = [{match = "a.org:80", target = "a"}]',
     'services[0].rules[0].match = "a.org:80" must be a host name without a port, such as "a.example.org", or '
     '"*.example.org" for all below it'),
    ('name = "web"', 'name = "web"\nselect = "tls_sni"\nrules = [{match = "10.1.0.1", target = "a"}]',
     'services[0].rules[0].match = "10.1.0.1" must be a host name without a port, such as "a.example.org", or '
     '"*.example.org" for all below it'),
    ('name = "web"', 'name = "web"\nselect = "tls_sni"\nrules = [{match = "a.org", exact = true, target = "a"}]',
     'services[0].rules[0].exact = true is not used by select = "tls_sni"; it must go'),
    ('name = "web"', 'name = "web"\nselect = "octets"\nrules = [{match = "0x160", target = "a"}]',
     'services[0].rules[0].match = "0x160" must be text, or octets in hexadecimal such as "0x1603"'),
    ('name = "web"', 'name = "web"\nselect = "octets"\nrules = [{match = "0x1603", mask = "0xff", target = "a"}]',
     'services[0].rules[0].mask = "0xff" must be as long as the match: 2 bytes'),
    ('name = "web"', 'name = "web"\nselect = "octets"\nrules = [{match = "0x1603", mask = "ff0f", target = "a"}]',
     'services[0].rules[0].mask = "ff0f" must be the bits that count, in hexadecimal such as "0xff0f"'),
    ('name = "web"', 'name = "web"\nselect = "octets"\nrules = [{match = "0x1603", offset = 16383, target = "a"}]',
     "services[0].rules[0].offset = 16383 with the match reaches beyond what is held of a client's first bytes "
     "(engine.held_bytes = 16384)"),
    ('name = "web"', 'name = "web"\nselect = "http_host"\nrules = [{match = "a.org", target = "c"}]',
     'services[0].rules[0].target = "c" is not among the targets of this service; known here: a, b'),
    ('name = "web"', 'name = "web"\nsource_addresses = ["10.2.0.11"]', 'services[0].source_addresses[0] = "10.2.0.11" '
     "is that of targets[0]; it must be an address of the engine's own"),
    ('name = "web"', 'name = "web"\nsource_addresses = ["10.1.0.1"]\nsource_ports = [80, 80]',
     "services[0].source_ports = [80, 80] has no port left on 10.1.0.1, since services listen on all of them there; "
     "it must be a wider range"),
    # Exception ports.
    *[('name = "left"', f'name = "left"\nexception = {{ device = "{device}" }}', f'ports[0].exception.device = "{device}" must be '
       '"net_tap7,iface=kx0" or "net_virtio_user0,path=/dev/vhost-net,iface=kx0", with any number and the name that the kernel\'s '
       "interface is to have, of 1 to 15 characters")
      for device in ("net_tap7", "net_tap7,iface=abcdefghijklmnop", "net_virtio_user0,iface=kx0", "net_af_packet7,iface=kx0")],
    ('name = "left"', 'name = "left"\nexception = { device = "net_tap7,iface=px1" }', 'ports[0].exception.device = '
     '"net_tap7,iface=px1" has the interface of ports[1]; each exception port needs one of its own'),
    ('name = "left"', 'name = "left"\nexception = { devise = "net_tap7,iface=kx0", device = "net_tap7,iface=kx0" }',
     'ports[0].exception.devise = "net_tap7,iface=kx0" is not a known key; did you mean "device"?'),
    ('name = "test"\n', 'name = "test"\nmbufs = 4600\n[[ports]]\nname = "x"\ndevice = "net_null7"\naddresses = ["10.5.0.1/24"]\n'
     'rxd = 32\ntxd = 32\nexception = { device = "net_tap7,iface=kx0" }\n',
     "engine.mbufs = 4600 must be at least 4736: the ports' rxd and txd and two bursts"),
]


def test_an_exception_port_is_behind_all_ports_and_the_kernel_has_the_ports_addresses():
    """An address that the engine answered ARP for is the kernel's too, without a network."""
    text = changed(GOOD, 'name = "left"', 'name = "left"\nexception = { device = "net_virtio_user0,path=/dev/vhost-net,iface=kx0" }')
    loaded = configuration.parse(changed(text, '"10.1.0.1:80"', '"10.1.0.100:80"'), "x.toml")
    assert [(number, exception.interface) for number, exception in loaded.exception_ports] == [(0, "kx0")] and loaded.port_count == 3
    assert [str(address) for address in loaded.interface_addresses(0)] == ["10.1.0.1/24", "10.1.0.100/32"]


def test_two_exception_ports_need_two_devices():
    text = changed(GOOD, 'name = "left"', 'name = "left"\nexception = { device = "net_tap7,iface=kx0" }')
    text = changed(text, 'name = "right"', 'name = "right"\nexception = { device = "net_tap7,iface=kx0" }')
    assert faults_of(text) == [f'x.toml: ports[1].exception.device = "net_tap7,iface=kx0" {what} of its own' for what in (
        "is already opened by ports[0].exception; each exception port needs one",
        "has the interface of ports[0].exception; each exception port needs one")]


@pytest.mark.parametrize(("old", "new", "sentence"), ONE_FAULT, ids=[sentence[:50] for _, _, sentence in ONE_FAULT])
def test_a_fault_is_refused_with_exactly_this_sentence(old, new, sentence):
    assert faults_of(changed(GOOD, old, new)) == [f"x.toml: {sentence}"]


FORWARDING = """[engine]
mode = "forward"
[[ports]]
name = "left"
device = "net_null0"
[ports.faults]
delay = 0.025
[[ports]]
name = "right"
device = "net_null1"
"""
OF_FORWARDING = [
    ('name = "right"', 'name = "right"\nexception = { device = "net_tap7,iface=kx0" }', 'ports[1].exception = {device = '
     '"net_tap7,iface=kx0"} is not used with engine.mode = "forward"; it must go, or mode must be "proxy"'),
    ("delay = 0.025", "loss = 1.5",
     "ports[0].faults.loss = 1.5 must be a share of the packets from 0 to 1, such as 0.01 for one in a hundred"),
    ("delay = 0.025", "flip = true",
     "ports[0].faults.flip = true must be a share of the packets from 0 to 1, such as 0.01 for one in a hundred"),
    ("delay = 0.025", "delay = -1", "ports[0].faults.delay = -1 must be a number of seconds from 0 to 60"),
    ("delay = 0.025", "reorder = 0.1\nreorder_delay = 0", "ports[0].faults.reorder_delay = 0 must be a number of seconds "
     "from 0.0001 to 60 (what a reordered packet is late by)"),
    ("delay = 0.025", "delay = 0.025\njitter = 0.03", "ports[0].faults.jitter = 0.03 varies the delay either way, so it "
     "must be at most that: delay = 0.025"),
    ("delay = 0.025", 'direction = "in"', 'ports[0].faults.direction = "in" must be one of "both", "receive", "transmit"'),
    ("delay = 0.025", "queue = 0",
     "ports[0].faults.queue = 0 must be a whole number from 1 to 1048576 (mbufs that may wait in each direction)"),
    ("delay = 0.025", "lost = 0.1", 'ports[0].faults.lost = 0.1 is not a known key; did you mean "loss"?'),
    ("delay = 0.025", "delay = 0.05\nqueue = 16384", "engine.mbufs must be at least 36928: the ports' rxd and txd and two "
     "bursts and 32768 that may wait in [ports.faults] (queue, for each direction)"),
    ("[ports.faults]\ndelay = 0.025", "faults = 0.1", "ports[0].faults = 0.1 must be a table [ports.faults]"),
    ("forward", "bridge", 'engine.mode = "bridge" must be one of "proxy", "forward", "generator"'),
    ('[[ports]]\nname = "right"\ndevice = "net_null1"', "", 'engine.mode = "forward" joins ports in pairs, the first with '
     "the second and so on; there must be an even number of [[ports]], not 1"),
    ('name = "right"', 'name = "right"\naddresses = ["10.1.0.1/24"]', 'ports[1].addresses = ["10.1.0.1/24"] is not used '
     'with engine.mode = "forward", which looks at no packet; it must go'),
    ("[[ports]]\nname = \"left\"", '[[targets]]\nid = "a"\nip = "10.2.0.11"\nport = 80\n[[ports]]\nname = "left"',
     'targets = [{id = "a", ip = "10.2.0.11", port = 80}] is not used with engine.mode = "forward", which looks at no packet; '
     "it must go"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), OF_FORWARDING, ids=[sentence[:50] for _, _, sentence in OF_FORWARDING])
def test_a_fault_of_plain_forwarding_or_of_the_fault_stage_is_refused_with_exactly_this_sentence(old, new, sentence):
    assert faults_of(changed(FORWARDING, old, new)) == [f"x.toml: {sentence}"]


def test_plain_forwarding_needs_no_address_and_the_proxy_says_what_it_needs():
    assert configuration.parse(FORWARDING, "x.toml").ports[0].faults.delay == 0.025
    assert faults_of(FORWARDING.replace("forward", "proxy")) == [
        *(f'x.toml: ports[{port}].addresses is missing; it must be a list of one or more addresses such as "10.1.0.1/24"'
          for port in (0, 1)),
        "x.toml: targets is missing; it must be one or more [[targets]] tables",
        "x.toml: services is missing; it must be one or more [[services]] tables"]


BED_FAULTS = [
    ('network_namespace = "test"', "", "engine.network_namespace is missing; [bed] needs the name of the network "
     'namespace that it makes for the engine, such as "proxy"'),
    ('iface=px0"', 'qpairs=1"', 'ports[0].device = "net_af_packet0,qpairs=1" must be "net_af_packet0,iface=NAME", '
     'since bed.device = "af_packet"'),
    ('port = "left"', 'port = "lefft"',
     'bed.hosts[0].port = "lefft" is not the name of one of [[ports]]; did you mean "left"?'),
    ('"10.1.0.2/24"', '"10.2.0.2/24"', 'bed.hosts[0].address = "10.2.0.2/24" must be in a network of port "left": '
     "10.1.0.0/24"),
    ('"10.1.0.2/24"', '"10.1.0.1/24"',
     'bed.hosts[0].address = "10.1.0.1/24" is the engine\'s own address (ports[0] has it)'),
    ('role = "client"', 'role = "client", web = true', 'bed.hosts[0].web = true needs role = "server"'),
    ('role = "client"', 'role = "client", gateway = "10.2.0.1"',
     'bed.hosts[0].gateway = "10.2.0.1" must be another address in 10.1.0.0/24'),
    ('name = "c"', 'name = "a-name-too-long"', 'bed.hosts[0].name = "a-name-too-long" must be a name of 1 to 11 small '
     "letters, digits and dashes (it becomes part of an interface's name)"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), BED_FAULTS, ids=[sentence[:50] for _, _, sentence in BED_FAULTS])
def test_a_fault_of_the_bed_is_refused_with_exactly_this_sentence(old, new, sentence):
    configuration.parse(WITH_BED, "x.toml")
    assert faults_of(changed(WITH_BED, old, new)) == [f"x.toml: {sentence}"]


def test_fewer_source_ports_than_workers_are_refused():
    text = changed(changed(GOOD, 'name = "test"', THREE), 'name = "web"', 'name = "web"\nsource_ports = [5000, 5001]')
    assert faults_of(text) == ["x.toml: services[0].source_ports = [5000, 5001] has fewer ports than there are workers (3); each "
                               "needs its own"]


def test_all_faults_are_reported_one_a_line():
    text = changed(changed(changed(GOOD, '"10.1.0.1:80"', "80"), "port = 8080", "port = 0"), 'name = "left"', "rxd = 1")
    with pytest.raises(ConfigurationError) as caught:
        configuration.parse(text, "x.toml")
    lines = str(caught.value).splitlines()
    assert [line.split()[1] for line in lines] == ["ports[0].name", "ports[0].rxd", "targets[0].port",
                                                   "services[0].listen"]


@pytest.mark.parametrize(("content", "sentence"), [
    (b"a = ", "not TOML: Invalid value (at end of document)"),
    (b"a = 1\na = 2", "not TOML: Cannot overwrite a value (at end of document)"),
    (b"\xff", "byte 0 is not UTF-8, which TOML has to be"),
    (b"a = " + b"[" * 5000, "not a configuration: nested too deeply"),
])
def test_what_is_not_toml_is_refused(tmp_path, content, sentence):
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        configuration.load(file)
    assert sentence in str(caught.value) and str(caught.value).startswith(f"{file}: ")


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        configuration.load(tmp_path / name)


def test_a_long_value_is_cut_short():
    sentence, = faults_of(changed(GOOD, '"10.2.0.11"', f'"{"9" * 5000}"'))
    assert len(sentence) < 200 and "…" in sentence


def test_a_kernel_of_the_users_is_looked_for_beside_the_configuration(tmp_path):
    (tmp_path / "mine.py").write_text("def by_tenant(selection, service, payload):\n    return 0\n")
    text = changed(GOOD, 'name = "web"', 'name = "web"\nselect = "mine.py:by_tenant"')
    loaded = configuration.parse(text, str(tmp_path / "x.toml"))
    assert loaded.services[0].select == f"{tmp_path}/mine.py:by_tenant"
    with pytest.raises(ConfigurationError, match='names no function of .*mine.py; did you mean "by_tenant"'):
        configuration.parse(text.replace("by_tenant", "by_tenants"), str(tmp_path / "x.toml"))
    with pytest.raises(ConfigurationError, match="names no file"):
        configuration.parse(text, "/nowhere/x.toml")


def test_a_recording_is_a_device_if_it_exists(tmp_path):
    text = changed(GOOD, "net_af_packet0,iface=px0", "pcap:in.recording")
    with pytest.raises(ConfigurationError, match="names no file"):
        configuration.parse(text, str(tmp_path / "x.toml"))
    (tmp_path / "in.recording").touch()
    port = configuration.parse(text, str(tmp_path / "x.toml")).ports[0]
    assert (port.device, port.driver, port.interface) == (f"pcap:{tmp_path}/in.recording", "pcap", None)


@pytest.mark.parametrize(("device", "driver", "interface"), [
    ("net_af_xdp0,iface=px0,start_queue=1", "net_af_xdp", "px0"),
    ("net_null0", "net_null", None),
    ("0000:01:00.0", "pci", None),
])
def test_what_a_port_knows_of_its_device(device, driver, interface):
    port = configuration.parse(changed(GOOD, "net_af_packet0,iface=px0", device), "x.toml").ports[0]
    assert (port.driver, port.interface) == (driver, interface)


def test_next_hop_prefers_the_longest_prefix():
    text = GOOD + '[[routes]]\nnetwork = "0.0.0.0/0"\ngateway = "10.1.0.254"\n' \
                  '[[routes]]\nnetwork = "10.2.0.128/25"\ngateway = "10.1.0.253"\n'
    loaded = configuration.parse(text, "x.toml")
    assert loaded.next_hop(ADDRESS("10.2.0.11")) == (1, ADDRESS("10.2.0.11"), ADDRESS("10.2.0.1"))
    assert loaded.next_hop(ADDRESS("10.2.0.200")) == (0, ADDRESS("10.1.0.253"), ADDRESS("10.1.0.1"))
    assert loaded.next_hop(ADDRESS("10.9.0.12")) == (1, ADDRESS("10.2.0.254"), ADDRESS("10.2.0.1"))
    assert loaded.next_hop(ADDRESS("8.8.8.8")) == (0, ADDRESS("10.1.0.254"), ADDRESS("10.1.0.1"))
    assert configuration.parse(GOOD, "x.toml").next_hop(ADDRESS("8.8.8.8")) is None


def test_source_ports_leave_out_where_services_listen():
    text = GOOD + '[[services]]\nname = "in"\nlisten = "10.2.0.1:2222"\ntargets = ["a"]\n'
    loaded = configuration.parse(text, "x.toml")
    web = loaded.services[0]
    assert loaded.source_addresses(web, loaded.target("a")) == (ADDRESS("10.2.0.1"),)
    assert loaded.left_out_ports(web, ADDRESS("10.2.0.1")) == [2222]
    assert loaded.left_out_ports(web, ADDRESS("10.1.0.1")) == []


def test_virtual_addresses_are_answered_for_where_they_are_on_link():
    text = changed(GOOD, '"10.1.0.1:80"', '"10.1.0.100:80"\nsource_addresses = ["10.2.0.50"]')
    loaded = configuration.parse(text, "x.toml")
    assert loaded.answered_addresses(0) == (ADDRESS("10.1.0.1"), ADDRESS("10.1.0.100"))
    assert loaded.answered_addresses(1) == (ADDRESS("10.2.0.1"), ADDRESS("10.2.0.50"))


def test_rules_are_ordered_by_how_specific_they_are():
    text = changed(GOOD, 'name = "web"', 'name = "web"\nselect = "http_path"\n'
                   'rules = [{match = "/", target = "a"}, {match = "/ab", target = "b"}]')
    service = configuration.parse(text, "x.toml").services[0]
    assert [rule.match for rule in service.ordered_rules] == ["/ab", "/"]


@pytest.mark.parametrize(("select", "matches", "ordered"), [
    ("tls_sni", ["*.b.org", "a.b.org", "*.a.b.org"], ["a.b.org", "*.a.b.org", "*.b.org"]),
    ("tls_alpn", ["h2", "http/1.1", "h3"], ["h2", "http/1.1", "h3"]),
    ("octets", ["a", "0x6162", "abc"], ["a", "0x6162", "abc"]),
])
def test_rules_are_tried_as_their_kernel_needs_it(select, matches, ordered):
    rules = ", ".join(f'{{match = "{match}", target = "a"}}' for match in matches)
    text = changed(GOOD, 'name = "web"', f'name = "web"\nselect = "{select}"\nrules = [{rules}]')
    assert [rule.match for rule in configuration.parse(text, "x.toml").services[0].ordered_rules] == ordered


@pytest.mark.parametrize(("old", "new", "warning"), [
    ('targets = ["a", "b"]', 'targets = ["a"]', 'targets[1] ("b") is used by no service'),
    ('name = "web"', 'name = "web"\nselect = "http_path"\nrules = [{match = "/a", target = "a"}]',
     'services[0] has target "b", which no rule and no default leads to'),
    ('name = "test"', f"main_core = {max(os.sched_getaffinity(0))}",
     f"engine.main_core = {max(os.sched_getaffinity(0))} is a worker's core as well; they will slow each other down"),
])
def test_what_looks_unintended_is_a_warning(old, new, warning):
    assert warning in configuration.warnings(configuration.parse(changed(GOOD, old, new), "x.toml"))


def test_a_configuration_is_not_changed_once_loaded():
    loaded = configuration.parse(GOOD, "x.toml")
    with pytest.raises(ValueError, match="frozen"):
        loaded.engine.burst = 1


GENERATING = """[engine]
mode = "generator"
[[ports]]
name = "p"
device = "net_null0"
addresses = ["10.1.0.2/24"]
[[targets]]
id = "a"
ip = "10.1.0.11"
port = 80
[generator]
[generator.clients]
connect = "10.1.0.1:80"
[generator.servers]
"""
OF_GENERATORS = [
    ('connect = "10.1.0.1:80"', 'connect = "10.9.0.1:80"',
     'generator.clients.connect = "10.9.0.1:80" cannot be reached; it must be in a network of a port, or [[routes]] must '
     "lead there"),
    ('connect = "10.1.0.1:80"', 'connect = "10.1.0.2:80"',
     'generator.clients.connect = "10.1.0.2:80" is one of the clients\' own addresses'),
    ('connect = "10.1.0.1:80"', 'connect = "10.1.0.1:80"\nsource_addresses = ["10.1.0.9-10.1.0.5"]',
     'generator.clients.source_addresses[0] = "10.1.0.9-10.1.0.5" must be an IPv4 address or a range of them, such as '
     '"10.1.0.2" or "10.1.0.10-10.1.0.19"'),
    ('connect = "10.1.0.1:80"', 'connect = "10.1.0.1:80"\nsource_addresses = ["10.0.0.0-10.1.0.19"]',
     'generator.clients.source_addresses = ["10.0.0.0-10.1.0.19"] are 65556 addresses; they must be at most 4096'),
    ('connect = "10.1.0.1:80"', 'connect = "10.1.0.1:80"\nsource_addresses = ["10.1.0.5", "10.1.0.4-10.1.0.6"]',
     'generator.clients.source_addresses = ["10.1.0.5", "10.1.0.4-10.1.0.6"] names an address twice'),
    ('connect = "10.1.0.1:80"', 'connect = "10.1.0.1:80"\ntargets = ["b"]',
     'generator.clients.targets[0] = "b" is not the id of one of [[targets]]; known here: a'),
    ("[generator]", '[generator]\nrequest = "{port}"',
     'generator.request = "{port}" must be at most 1000 ASCII characters, in which {number} and {target} stand for a target, such as "{number}\\n"'),
    ("[generator]", "[generator]\nrequest_bytes = 7",
     "generator.request_bytes = 7 has no room for its text and four bytes of serial number; it must be at least 8, or 0 "
     "for the text alone"),
    ("[generator]", "[generator]\nresponse_bytes = 0\nresponse_packets = 2",
     "generator.response_packets = 2 needs response_bytes, for the text alone is one packet"),
    ("[generator]", '[generator]\nproxy = "none.toml"', None),
    ("[generator.clients]\nconnect = \"10.1.0.1:80\"\n[generator.servers]", "",
     "generator = {} must have a table [generator.clients], or [generator.servers], or both"),
    ('ip = "10.1.0.11"', 'ip = "10.1.0.255"', 'targets[0].ip = "10.1.0.255" is the broadcast address of 10.1.0.0/24; it must be a '
     "host's"),
    ('[[targets]]', '[kernels]\nparse = "offset"\n[[targets]]', 'kernels = {parse = "offset"} is not used with engine.mode = '
     '"generator", which is both ends itself; it must go'),
    ('mode = "generator"', 'mode = "proxy"', None),
]


@pytest.mark.parametrize(("old", "new", "sentence"), OF_GENERATORS, ids=[str(sentence)[:50] for _, _, sentence in OF_GENERATORS])
def test_a_fault_of_a_generator_is_refused_with_exactly_this_sentence(old, new, sentence):
    found = faults_of(changed(GENERATING, old, new))
    assert found == [f"x.toml: {sentence}"] or sentence is None and all("generator" in each or "services" in each for each in found)


def test_a_generator_has_the_addresses_of_its_clients_and_servers():
    loaded = configuration.parse(GENERATING, "x.toml")
    assert [str(address) for address in loaded.answered_addresses(0)] == ["10.1.0.2", "10.1.0.11"]
    many = configuration.parse(changed(GENERATING, "[generator.servers]", 'source_addresses = ["10.1.0.4-10.1.0.5"]'), "x.toml")
    assert [str(address) for address in many.answered_addresses(0)] == ["10.1.0.2", "10.1.0.4", "10.1.0.5"]
