"""What has to hold between the parts of a configuration. Each check yields Faults; none changes anything."""
import itertools
import os

from pipeline.configuration import traffic_checks
from pipeline.configuration.faults import Fault
from pipeline.configuration.content_rules import CONTENTS, hexadecimal, same_content
from pipeline.configuration.models import PAYLOAD_SELECTS, RULE_SELECTS, SLOTS, Service, available_cores
from pipeline.configuration.values import REFUSE, place_in_network, suggestion


MOST_WORKERS = 64
LEAST_FOR_HEADER = 256
"""Bytes that a received PROXY header may have at least."""


def faults(configuration):
    """Yields every Fault between the parts of `configuration`, each part by itself being right."""
    mode = configuration.engine.mode
    missing = list({"forward": _forward, "generator": traffic_checks.missing, "proxy": _proxy}[mode](configuration))
    if mode != "generator" and configuration.generator:
        missing.append(Fault(("generator",), f'is not used with engine.mode = "{mode}"; it must go, or mode must be "generator"'))
    if mode != "proxy" and configuration.access:
        missing.append(Fault(("access",), f'is not used with engine.mode = "{mode}"; it must go, or mode must be "proxy"'))
    missing += _needless_exceptions(configuration)
    yield from missing
    if missing:
        return
    if mode == "generator":
        for check in (_engine, _port_faults, _unique_names, _devices, _on_link_networks, _routes, *traffic_checks.CHECKS, _bed,
                      _bed_hosts):
            yield from check(configuration)
        return
    for check in (_engine, _port_faults, _kernels, _unique_names, _devices, _exception_devices, _on_link_networks, _routes, _targets, _listening,
                  _service_targets, _access, _selects, _rules, _payload_rules, _proxy_protocol, _source_addresses, _bed, _bed_hosts):
        yield from check(configuration)


def warnings(configuration):
    """Yields Faults that do not keep the engine from running."""
    used = {identifier for service in configuration.services for identifier in service.members}
    for index, target in enumerate(configuration.targets):
        if target.id not in used and configuration.engine.mode == "proxy":
            yield Fault(("targets", index), f'("{target.id}") is used by no service')
    for index, service in enumerate(configuration.services):
        chosen = {rule.target for rule in service.rules} | {service.default_target}
        named = {rule.group for rule in service.rules} | {service.default}
        for place, group in enumerate(service.groups):
            if group.name not in named:
                yield Fault(("services", index, "groups", place), f'("{group.name}") is named by no rule and no default')
            chosen |= set(group.targets) if group.name in named else set()
        for identifier in service.targets if service.select in RULE_SELECTS else ():
            if identifier not in chosen:
                yield Fault(("services", index), f'has target "{identifier}", which no rule and no default leads to')
    if configuration.engine.main_core in configuration.engine.cores:
        yield Fault(("engine", "main_core"), f"= {configuration.engine.main_core} is a worker's core as well; "
                    "they will slow each other down")
    if configuration.bed:
        hosts = {host.address.ip for host in configuration.bed.hosts}
        for index, target in enumerate(configuration.targets):
            if target.ip not in hosts and target not in configuration.played_targets:
                yield Fault(("targets", index), f'("{target.id}", {target.ip}) is the address of no host of the bed')


def _proxy(configuration):
    """Refuses a proxy without an address, a target or a service."""
    parts = [(("ports", index), port, "addresses") for index, port in enumerate(configuration.ports)]
    for place, table, key in [*parts, ((), configuration, "targets"), ((), configuration, "services")]:
        if not getattr(table, key):
            missing = "" if key in table.model_fields_set else "is missing; it "
            yield Fault((*place, key), f"{missing}must be {type(table).model_fields[key].description}")


def _forward(configuration):
    """Refuses ports without a partner, and what plain forwarding has no use for."""
    if len(configuration.ports) % 2:
        yield Fault(("engine", "mode"), "joins ports in pairs, the first with the second and so on; there must be an even "
                    f"number of [[ports]], not {len(configuration.ports)}")
    parts = [(("ports", index), port, "addresses") for index, port in enumerate(configuration.ports)]
    for place, table, key in [*parts, *(((), configuration, key) for key in ("targets", "services", "routes", "kernels"))]:
        if getattr(table, key):
            yield Fault((*place, key), 'is not used with engine.mode = "forward", which looks at no packet; it must go')


def _access(configuration):
    """Refuses prefixes that one table both allows and denies, and resets that a service would not let out."""
    tables = [(("access",), configuration.access)] if configuration.access else []
    tables += [(("services", index), service) for index, service in enumerate(configuration.services)]
    for place, table in tables:
        for network in sorted(set(table.allowed) & set(table.denied_sources)):
            yield Fault((*place, "deny"), f"lists {network}, which allow lists as well; it must be in one of them")
    if configuration.access and configuration.access.denied == "reset":
        for index, service in enumerate(configuration.services):
            if service.stray == "drop":
                yield Fault(("services", index, "stray"), '= "drop" keeps the resets back that access.denied = "reset" asks for; '
                            "one of them must change")


def _port_faults(configuration):
    for index, port in enumerate(configuration.ports):
        if port.faults and port.faults.jitter > port.faults.delay:
            yield Fault(("ports", index, "faults", "jitter"), "varies the delay either way, so it must be at most that: "
                        f"delay = {port.faults.delay:g}")


def _needless_exceptions(configuration):
    """Refuses exception ports where nothing is left to the kernel."""
    mode = configuration.engine.mode
    return [Fault(("ports", index, "exception"), f'is not used with engine.mode = "{mode}"; it must go, or mode must be "proxy"')
            for index, _ in configuration.exception_ports if mode != "proxy"]


def _exception_devices(configuration):
    """Refuses exception ports beside what DPDK does not open, and what another port has opened already."""
    devices = {port.device.partition(",")[0]: f"ports[{index}]" for index, port in enumerate(configuration.ports)}
    interfaces = {port.interface: f"ports[{index}]" for index, port in enumerate(configuration.ports) if port.interface}
    for index, exception in configuration.exception_ports:
        location = ("ports", index, "exception", "device")
        if configuration.ports[index].driver in ("pcap", "ring"):
            yield Fault(("ports", index, "exception"), "has no network beside it: the port is no device of DPDK's; it must go")
        device = exception.device.partition(",")[0]
        if device in devices:
            yield Fault(location, f"is already opened by {devices[device]}; each exception port needs one of its own")
        if exception.interface in interfaces:
            yield Fault(location, f"has the interface of {interfaces[exception.interface]}; each exception port needs one of its own")
        devices[device] = interfaces[exception.interface] = f"ports[{index}].exception"


def _engine(configuration):
    engine, cores = configuration.engine, available_cores()
    yield from _workers(configuration)
    for index, core in enumerate(engine.cores):
        if core not in cores:
            yield Fault(("engine", "cores", index), f"is no core of this process; it must be one of {cores}")
    if engine.main_core not in cores:
        yield Fault(("engine", "main_core"), f"is no core of this process; it must be one of {cores}")
    if engine.held_bytes % 64:
        yield Fault(("engine", "held_bytes"), f"must be a multiple of 64, such as {engine.held_bytes // 64 * 64}")
    held = engine.held_connections * configuration.held_stride
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if held > memory // 2:
        yield Fault(("engine", "held_connections"), f"with held_bytes = {engine.held_bytes} takes {held >> 20} MiB; "
                    f"together they must take at most half of this machine's {memory >> 20} MiB")
    waiting = sum(port.faults.mbufs for port in configuration.ports if port.faults)
    received = sum(port.rxd for port in (*configuration.ports, *(exception for _, exception in configuration.exception_ports)))
    needed = max(len(engine.cores), 1) * (received + configuration.transmit_descriptors + 2 * engine.burst + waiting)
    if engine.mbufs < needed:
        more = f" and {waiting} that may wait in [ports.faults] (queue, for each direction)" if waiting else ""
        each = " for each worker" if len(engine.cores) > 1 else ""
        yield Fault(("engine", "mbufs"), f"must be at least {needed}: the ports' rxd and txd and two bursts{more}{each}")


def _workers(configuration):
    """What more than one worker needs."""
    engine, workers = configuration.engine, len(configuration.engine.cores)
    if workers == 0:
        yield Fault(("engine", "cores"), f"must name a core for each worker, such as [{available_cores()[-1]}]")
    if workers > MOST_WORKERS:
        yield Fault(("engine", "cores"), f"must name at most {MOST_WORKERS} cores")
    for index, first in () if engine.oversubscribe else _repeated(engine.cores):
        yield Fault(("engine", "cores", index), f"is already that of cores[{first}]: two workers would take it from each other; "
                    "it must be another one, or oversubscribe must be true (for tests)")
    if workers > 1 and engine.mode == "generator":
        yield Fault(("engine", "cores"), 'must name one core with mode = "generator", which has one worker')
    if workers > 1 and any(port.driver in ("pcap", "ring") for port in configuration.ports):
        yield Fault(("engine", "cores"), "must name one core: a recording, or a cable (ring:), has one queue")
    if engine.dst_port_mask and 1 << engine.dst_port_mask.bit_count() < workers:
        yield Fault(("engine", "dst_port_mask"), f"tells {1 << engine.dst_port_mask.bit_count()} blocks of ports apart; it must "
                    f"have bits for {workers} workers at least, such as {0xFC00}")


def _kernels(configuration):
    for slot in configuration.kernels:
        if slot == "select":
            yield Fault(("kernels", slot), "is not set here; each of [[services]] has a select of its own")
        elif slot == "payload":
            yield Fault(("kernels", slot), "is not set here; each of [[services]] has payload_to_target and payload_to_client")
        elif slot not in SLOTS:
            yield Fault(("kernels", slot), "is not a known slot" + suggestion(slot, SLOTS))


def _repeated(values):
    """Yields (index, index of the first) for each value that an earlier one equals."""
    first = {}
    for index, value in enumerate(values):
        if first.setdefault(value, index) != index:
            yield index, first[value]


def _unique_names(configuration):
    lists = [("ports", "name", configuration.ports), ("services", "name", configuration.services),
             ("targets", "id", configuration.targets), ("routes", "network", configuration.routes)]
    for table, key, items in lists:
        for index, first in _repeated(getattr(item, key) for item in items):
            yield Fault((table, index, key), f"is already that of {table}[{first}]; it must be another one")


def _devices(configuration):
    for index, first in _repeated(port.device.partition(",")[0] for port in configuration.ports):
        yield Fault(("ports", index, "device"), f"is already opened by ports[{first}]; each port needs one of its own")
    for index, first in _repeated(port.interface or index for index, port in enumerate(configuration.ports)):
        yield Fault(("ports", index, "device"), f"opens the interface of ports[{first}]; each port needs one of its own")
    for index, first in _repeated(port.mac or index for index, port in enumerate(configuration.ports)):
        yield Fault(("ports", index, "mac"), f"is already that of ports[{first}]; it must be another one")
    for index, port in enumerate(configuration.ports):
        if port.interface is not None and not 1 <= len(port.interface) <= 15:
            yield Fault(("ports", index, "device"), "must name an interface of 1 to 15 characters after iface=")


def _own_addresses(configuration):
    """Yields (port index, index in its addresses, IPv4Interface)."""
    for port_index, port in enumerate(configuration.ports):
        for index, interface in enumerate(port.addresses):
            yield port_index, index, interface


def _on_link_networks(configuration):
    own = list(_own_addresses(configuration))
    for (port, index, interface), (earlier_port, earlier, other) in itertools.combinations(own[::-1], 2):
        if interface.ip == other.ip:
            yield Fault(("ports", port, "addresses", index),
                        f"is already ports[{earlier_port}].addresses[{earlier}]; it must be another one")
        elif port != earlier_port and interface.network.overlaps(other.network):
            yield Fault(("ports", port, "addresses", index), f"overlaps the network {other.network} of "
                        f"ports[{earlier_port}]; two ports must have networks apart")


def _wrong_place(configuration, address):
    """Returns why `address` cannot be a host on the on-link networks, as the end of a sentence, or None."""
    for port_index, _, interface in _own_addresses(configuration):
        place = place_in_network(address, interface.network)
        if place:
            return f"is the {place} of {interface.network} (ports[{port_index}]); it must be a host's"
    return None


def _ours(configuration):
    """Returns a dict of address -> whose it is (str), for the ports' and the services' addresses."""
    ours = {service.listen.address: f"services[{index}] listens"
            for index, service in enumerate(configuration.services) if service.listen.length == 32}
    ours.update({address: "generator.clients have it" for address in configuration.client_addresses})
    ours.update({target.ip: f"{target.id} is played there" for target in configuration.played_targets})
    ours.update({interface.ip: f"ports[{port}] has it" for port, _, interface in _own_addresses(configuration)})
    return ours


def _routes(configuration):
    ours = _ours(configuration)
    networks = [interface.network for _, _, interface in _own_addresses(configuration)]
    for index, route in enumerate(configuration.routes):
        if not configuration.on_link(route.gateway):
            yield Fault(("routes", index, "gateway"), "is on no network of a port; "
                        f"it must be in one of {', '.join(map(str, dict.fromkeys(networks)))}")
        elif reason := _wrong_place(configuration, route.gateway):
            yield Fault(("routes", index, "gateway"), reason)
        elif route.gateway in ours:
            yield Fault(("routes", index, "gateway"), f"is the engine's own address ({ours[route.gateway]}); "
                        "it must be a router's")
        if route.network in networks:
            yield Fault(("routes", index, "network"), "is the network of a port already and needs no route")


def _targets(configuration):
    ours = _ours(configuration)
    for index, first in _repeated((target.ip, target.port) for target in configuration.targets):
        yield Fault(("targets", index, "ip"), f"with port = {configuration.targets[index].port} is already "
                    f"targets[{first}]; two targets must differ in ip or port")
    for index, target in enumerate(configuration.targets):
        yield from _check_of_target(index, target)
        if target.mac and target.linux_if:
            yield Fault(("targets", index, "linux_if"), "excludes mac; one of the two must go")
        if target.ip in ours:
            yield Fault(("targets", index, "ip"), f"is the engine's own address ({ours[target.ip]}); "
                        "it must be a server's")
        elif reason := _wrong_place(configuration, target.ip):
            yield Fault(("targets", index, "ip"), reason)
        elif not configuration.on_link(target.ip) and not any(target.ip in route.network
                                                              for route in configuration.routes):
            yield Fault(("targets", index, "ip"), "cannot be reached; it must be in a network of a port, "
                        "or [[routes]] must lead there")


def _check_of_target(index, target):
    """Refuses keys of a check that its kind has no use for, and one without what it needs."""
    used = {"connect": (), "send": ("send", "expect"), "http": ("path", "status")}
    check = target.check
    for key in ("send", "expect", "path", "status") if check else ():
        if key in check.model_fields_set and key not in used[check.kind]:
            yield Fault(("targets", index, "check", key), f'is not used with kind = "{check.kind}"; it must go')
    if check and check.kind == "send" and not check.expect:
        yield Fault(("targets", index, "check", "expect"), 'is missing; kind = "send" must know what answer to expect')


def _listening(configuration):
    gateways = {route.gateway: f"routes[{index}]" for index, route in enumerate(configuration.routes)}
    for index, first in _repeated(service.listen for service in configuration.services):
        yield Fault(("services", index, "listen"), f"is already that of services[{first}]; it must be another one")
    yield from _ambiguous(configuration.services)
    for index, service in enumerate(configuration.services):
        if service.listen.length < 32:
            yield from _prefix(configuration, index, service.listen.network)
        elif reason := _wrong_place(configuration, service.listen.address):
            yield Fault(("services", index, "listen"), reason)
        elif service.listen.address in gateways:
            yield Fault(("services", index, "listen"), f"is the gateway of {gateways[service.listen.address]}; "
                        "it must be an address of the engine's own")


def _ambiguous(listed):
    """Refuses ranges of ports that overlap on the same addresses without one being within the other: neither is more specific."""
    for (first, one), (index, other) in itertools.combinations(enumerate(service.listen for service in listed), 2):
        if one.network == other.network and one.port < other.port <= one.last_port < other.last_port or (
                one.network == other.network and other.port < one.port <= other.last_port < one.last_port):
            yield Fault(("services", index, "listen"), f"overlaps services[{first}] ({one}) and neither is within the other; "
                        "one of them must end where the other begins, or be within it")


def _prefix(configuration, index, network):
    """Refuses a prefix in which there are hosts that are not ours, or that the kernel beside a port would have to answer for."""
    for port, _, interface in _own_addresses(configuration):
        if interface.network.subnet_of(network):
            yield Fault(("services", index, "listen"), f"has the whole network {interface.network} of ports[{port}] in it, all of "
                        "whose hosts would be taken for ours; it must be a part of that, or another network that is routed to us")
        elif network.subnet_of(interface.network) and configuration.ports[port].exception:
            yield Fault(("services", index, "listen"), f"is in a network of ports[{port}], beside whose exception port the kernel "
                        "answers ARP, but not for prefixes; its addresses must be listed one a service")
    others = {f"targets[{number}]": target.ip for number, target in enumerate(configuration.targets)}
    others |= {f"the gateway of routes[{number}]": route.gateway for number, route in enumerate(configuration.routes)}
    for whose, address in others.items():
        if address in network:
            yield Fault(("services", index, "listen"), f"has the address of {whose} in it ({address}); it must be a prefix of "
                        "addresses that are all the engine's own")


def _service_targets(configuration):
    known = [target.id for target in configuration.targets]
    for index, service in enumerate(configuration.services):
        for place, identifier in enumerate(service.targets):
            if identifier not in known:
                yield Fault(("services", index, "targets", place),
                            "is not the id of one of [[targets]]" + suggestion(identifier, known))
        for place, first in _repeated(service.targets):
            yield Fault(("services", index, "targets", place), f"is already targets[{first}] of this service")
        if not service.members:
            missing = "" if "targets" in service.model_fields_set else "is missing; it "
            yield Fault(("services", index, "targets"), f"{missing}must be {Service.model_fields['targets'].description}")
        if service.default_target and service.default not in service.members:
            yield Fault(("services", index, "default"), 'is not among the targets of this service; it must be '
                        'one of them, or "refuse"')
        yield from _groups(configuration, index, service)


def _groups(configuration, index, service):
    """Refuses groups with targets that are not there, with weights that do not fit, and names that mean two things."""
    known = [target.id for target in configuration.targets]
    for number, first in _repeated(group.name for group in service.groups):
        yield Fault(("services", index, "groups", number, "name"), f"is already that of groups[{first}]; it must be another one")
    for number, group in enumerate(service.groups):
        location = ("services", index, "groups", number)
        if group.name in (*service.members, REFUSE):
            yield Fault((*location, "name"), f'("{group.name}") means something else as a default; it must be another one than '
                        f'"{REFUSE}" and the targets\' ids')
        for place, identifier in enumerate(group.targets):
            if identifier not in known:
                yield Fault((*location, "targets", place), "is not the id of one of [[targets]]" + suggestion(identifier, known))
        for place, first in _repeated(group.targets):
            yield Fault((*location, "targets", place), f"is already targets[{first}] of this group")
        if group.weights and len(group.weights) != len(group.targets):
            yield Fault((*location, "weights"), f"must have a weight for each of the {len(group.targets)} targets, or go")


def _selects(configuration):
    for index, service in enumerate(configuration.services):
        if service.binding != "delayed" and service.select in PAYLOAD_SELECTS:
            yield Fault(("services", index, "select"), f'looks at the payload, which binding = "{service.binding}" does not '
                        'wait for; it must be "round_robin" or a kernel of your own, or binding must be "delayed"')
        if service.select in RULE_SELECTS and not service.rules:
            example = CONTENTS[service.select].example
            yield Fault(("services", index, "rules"), f'must have a rule for select = "{service.select}", such as '
                        f'[{{match = "{example}", target = "{(*service.members, "a")[0]}"}}]')
        if service.rules and service.select not in RULE_SELECTS:
            yield Fault(("services", index, "rules"), f'is not used by select = "{service.select}"; it must go, '
                        'or select must be one that looks for it, such as "http_path" or "tls_sni"')


def _proxy_protocol(configuration):
    """Refuses PROXY headers and TOA where the connection is the client's own, and held bytes into which none would fit."""
    for index, service in enumerate(configuration.services):
        for key, used in (("proxy_protocol", service.proxy_protocol != "off"), ("toa", service.toa),
                          ("accept_proxy_protocol", service.accept_proxy_protocol)):
            if used and service.binding == "simple":
                yield Fault(("services", index, key), 'is not used with binding = "simple", where the client\'s own handshake goes '
                            'on to the target; it must go, or binding must be "delayed" or "immediate"')
        if service.accept_proxy_protocol and configuration.engine.held_bytes < LEAST_FOR_HEADER:
            yield Fault(("engine", "held_bytes"), f"must be at least {LEAST_FOR_HEADER}, into which a PROXY header fits, since "
                        f"services[{index}] has accept_proxy_protocol")


def _rules(configuration):
    for index, service in enumerate(configuration.services):
        if service.select not in RULE_SELECTS:
            continue
        content = CONTENTS[service.select]
        for place, rule in enumerate(service.rules):
            location = ("services", index, "rules", place)
            if not content.is_right(rule.match):
                yield Fault((*location, "match"), f"must be {content.right}")
            yield from _rule_keys(configuration, service, rule, location)
            if rule.group is not None and rule.target is not None:
                yield Fault((*location, "group"), "excludes target; one of the two must go")
            elif rule.group is not None:
                names = [group.name for group in service.groups]
                if rule.group not in names:
                    yield Fault((*location, "group"), "is not the name of one of this service's groups" + suggestion(rule.group, names))
            elif rule.target is None:
                yield Fault((*location, "target"), "is missing; a rule must have a target or a group")
            elif rule.target not in service.members:
                yield Fault((*location, "target"),
                            "is not among the targets of this service" + suggestion(rule.target, service.members))
        matches = [same_content(service.select, rule) if content.is_right(rule.match) else place
                   for place, rule in enumerate(service.rules)]
        for place, first in _repeated(matches):
            yield Fault(("services", index, "rules", place, "match"),
                        f"is already that of rules[{first}]; it must be another one")


def _rule_keys(configuration, service, rule, location):
    """Refuses keys that a rule has in vain, a mask that does not cover its match, and octets that are never held."""
    for key, given in (("exact", rule.exact), ("mask", rule.mask is not None), ("offset", rule.offset > 0)):
        if given and key not in CONTENTS[service.select].keys:
            yield Fault((*location, key), f'is not used by select = "{service.select}"; it must go')
    if service.select != "octets" or not CONTENTS["octets"].is_right(rule.match):
        return
    length = len(hexadecimal(rule.match))
    if rule.mask is not None and len(rule.mask) // 2 - 1 != length:
        yield Fault((*location, "mask"), f"must be as long as the match: {length} bytes")
    if rule.offset + length > configuration.engine.held_bytes:
        yield Fault((*location, "offset"), "with the match reaches beyond what is held of a client's first bytes (engine.held_bytes = "
                    f"{configuration.engine.held_bytes})")
PAYLOAD_KEYS = {"replace": (("search", "replace"), ("first",)), "refuse_pattern": (("search",), ("first",)),
                "count_pattern": (("search",), ("first",)), "rate_limit": (("rate", "burst"), ()),
                "insert_header": (("header",), ()), "ldap_guard": ((), ("search", "replace", "refuse_anonymous")),
                "unchanged": ((), ()), "mask_digits": ((), ())}
"""What a payload rule with a kernel of ours must say, and what it may say beside that."""
UPWARD = ("insert_header", "ldap_guard")
"""Payload kernels of ours that read what clients send."""


def _payload_rules(configuration):
    for index, service in enumerate(configuration.services):
        for key in ("payload_to_target", "payload_to_client"):
            name = getattr(service, key)
            if PAYLOAD_KEYS.get(name, ((), ())) != ((), ()):
                yield Fault(("services", index, key), f'has to be told more: it must be [[services.payload_rules]] with '
                            f'direction = "{key[8:]}" and kernel = "{name}"')
            elif name and any(rule.direction == key[8:] for rule in service.payload_rules):
                yield Fault(("services", index, key), f'excludes payload_rules with direction = "{key[8:]}"; it must be one of them')
        for place, rule in enumerate(service.payload_rules):
            for key, sentence in _payload_rule(service, rule):
                yield Fault(("services", index, "payload_rules", place, key), sentence)


def _payload_rule(service, rule):
    """Yields (key, sentence) for what is wrong with a payload rule of a service."""
    keys = [key for key in type(rule).model_fields if key not in ("direction", "kernel")]
    needed, further = PAYLOAD_KEYS.get(rule.kernel, ((), keys))
    for key in keys:
        if key in needed and getattr(rule, key) is None:
            yield key, f'is missing; kernel = "{rule.kernel}" needs it: it must be {type(rule).model_fields[key].description}'
        elif key in rule.model_fields_set and key not in (*needed, *further):
            yield key, f'is not used by kernel = "{rule.kernel}"; it must go'
    if rule.kernel in UPWARD and rule.direction != "to_target":
        yield "direction", f'must be "to_target": kernel = "{rule.kernel}" reads what clients send'
    if rule.kernel == "ldap_guard" and (rule.search is None) != (rule.replace is None):
        yield "search", "and replace belong together; both must be given, or neither"
    chain = [other for other in service.payload_rules if other.direction == rule.direction]
    if rule.kernel == "rate_limit" and rule is not chain[0]:
        yield "kernel", 'must be the first of its direction: what "rate_limit" drops comes again, and no other kernel may have seen it'


def _source_addresses(configuration):
    others = {target.ip: f"targets[{index}]" for index, target in enumerate(configuration.targets)}
    others.update({route.gateway: f"routes[{index}]" for index, route in enumerate(configuration.routes)})
    for index, service in enumerate(configuration.services):
        for place, first in _repeated(service.source_addresses):
            yield Fault(("services", index, "source_addresses", place), f"is already source_addresses[{first}]")
        for place, address in enumerate(service.source_addresses):
            location = ("services", index, "source_addresses", place)
            if reason := _wrong_place(configuration, address):
                yield Fault(location, reason)
            elif address in others:
                yield Fault(location, f"is that of {others[address]}; it must be an address of the engine's own")
        yield from _source_ports(configuration, index, service)


def _source_ports(configuration, index, service):
    """Refuses source ports of which nothing is left once the listening ports are taken out, and fewer than there are workers."""
    low, high = service.source_ports
    workers = len(configuration.engine.cores)
    if high - low + 1 < workers:
        yield Fault(("services", index, "source_ports"), f"has fewer ports than there are workers ({workers}); each needs its own")
    if configuration.engine.flow_steering == "address" and workers > 1 and len(service.source_addresses) < workers:
        yield Fault(("services", index, "source_addresses"), f"must have an address for each of {workers} workers, since "
                    'engine.flow_steering = "address"')
    known = {target.id: target for target in configuration.targets}
    reachable = [known[name] for name in service.targets if name in known and configuration.on_link(known[name].ip)]
    addresses = service.source_addresses or {configuration.on_link(target.ip)[1].ip for target in reachable}
    for address in addresses:
        if len(configuration.left_out_ports(service, address)) > high - low:
            yield Fault(("services", index, "source_ports"), f"has no port left on {address}, since services listen "
                        "on all of them there; it must be a wider range")
            return


def _bed(configuration):
    if not configuration.bed:
        return
    if configuration.engine.network_namespace is None:
        yield Fault(("engine", "network_namespace"), "is missing; [bed] needs the name of the network namespace "
                    'that it makes for the engine, such as "proxy"')
    driver = f"net_{configuration.bed.device}"
    for index, port in enumerate(configuration.ports):
        if port.driver != driver or not port.interface:
            yield Fault(("ports", index, "device"), f'must be "{driver}{index},iface=NAME", '
                        f'since bed.device = "{configuration.bed.device}"')


def _bed_hosts(configuration):
    hosts = configuration.bed.hosts if configuration.bed else ()
    for key, what in (("name", [host.name for host in hosts]), ("address", [host.address.ip for host in hosts])):
        for index, first in _repeated(what):
            yield Fault(("bed", "hosts", index, key), f"is already that of hosts[{first}]; it must be another one")
    names = [port.name for port in configuration.ports]
    ours = _ours(configuration)
    for index, host in enumerate(hosts):
        location = ("bed", "hosts", index)
        if host.port not in names:
            yield Fault((*location, "port"), "is not the name of one of [[ports]]" + suggestion(host.port, names))
        else:
            port = configuration.ports[names.index(host.port)]
            networks = [interface.network for interface in port.addresses]
            if networks and host.address.network not in networks:
                yield Fault((*location, "address"), f'must be in a network of port "{host.port}": '
                            + ", ".join(map(str, networks)))
        if host.address.ip in ours:
            yield Fault((*location, "address"), f"is the engine's own address ({ours[host.address.ip]})")
        if host.gateway and (host.gateway not in host.address.network or host.gateway == host.address.ip):
            yield Fault((*location, "gateway"), f"must be another address in {host.address.network}")
        if host.web and host.role != "server":
            yield Fault((*location, "web"), 'needs role = "server"')
