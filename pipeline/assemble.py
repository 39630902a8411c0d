"""Makes a worker's `State` from a configuration: plain Python, validated before anything is compiled."""
import hashlib
import ipaddress
import pathlib
import secrets

import numpy as np

from pipeline import replacement
from pipeline.access_lists import make_access
from pipeline.configuration import content_rules
from pipeline.errors import ConfigurationError
from pipeline.limits import make_limits, target_limits
from pipeline.kernels import (
    arp,
    batch,
    connection,
    counters,
    faults,
    free_list,
    kernel_neighbours,
    memory,
    neighbours,
    observe,
    octet_search,
    outbox,
    payload_rules,
    profile,
    proxy_header,
    proxy_protocol,
    recorder,
    records,
    select_maglev,
    rules,
    services,
    shaping,
    source_ports,
    syn_cookies,
    waiting_room,
    wheel,
)
from pipeline.state import ORDERS, TIMERS_A_PASS, State
from pipeline.steering import ALONE, make_steering, own_entries, part_of

NEIGHBOURS = 16384
"""Hosts on-link that one worker can know."""
MAILBOX = 4096
"""Changes of the kernel's neighbour table that may wait for a worker to read them."""
OFFER = connection.PROMISED_SACK | connection.PROMISED_TIMESTAMPS | connection.PROMISED_SCALING | connection.PROMISED_ECN
"""What targets are believed to support until one has declined it."""
OUTBOX = 2 * ORDERS
"""Packets that one burst of 64 can make for a port."""
HOWS = {"exact": rules.EXACT, "prefix": rules.PREFIX, "suffix": rules.SUFFIX}
BINDINGS = {"delayed": services.DELAYED, "immediate": services.IMMEDIATE, "simple": services.SIMPLE}
PROXY_VERSIONS = {"off": proxy_protocol.NOT_SENT, "v1": proxy_header.V1, "v2": proxy_header.V2}
EXPECTED = {"delayed": proxy_protocol.EXPECTED_BEFORE_PAYLOAD, "immediate": proxy_protocol.EXPECTED_ALONE}
EMPTY_PASSES = 2000
"""Passes without a packet before a worker that backs off sleeps for the first time: some 50 microseconds of spinning."""


def split_mac(mac):
    """Returns a MAC address (int) as its upper 16 and lower 32 bits."""
    return mac >> 32, mac & 0xFFFFFFFF


def bursts(configuration):
    """Returns how many times 64 packets a burst may have, rounded up (int)."""
    return -(-configuration.engine.burst // 64)


def _column(values):
    return np.array(list(values), np.int64)


def static_mac(target):
    """Returns the MAC (int) that a target is configured to have, or None; raises ConfigurationError."""
    text = target.mac
    if target.linux_if is not None:
        path = pathlib.Path("/sys/class/net") / target.linux_if / "address"
        try:
            text = path.read_text().strip()
        except OSError as error:
            raise ConfigurationError(f'targets: "{target.id}" has linux_if = "{target.linux_if}", '
                                     "which is no network interface here") from error
    return None if text is None else int(text.replace(":", ""), 16)


def path_mss(configuration):
    """Returns the largest MSS that fits every port of a configuration."""
    return min(port.mtu for port in configuration.ports) - 40


def make_network(configuration, macs):
    """Returns the `Network` of a configuration; `macs` (ints) are the addresses of its ports, then of its exception ports."""
    ports, exceptions = configuration.ports, configuration.exception_ports
    beside = [-1] * len(ports) + [number for number, _ in exceptions]
    mtus = _column(ports[number if wire < 0 else wire].mtu for number, wire in enumerate(beside))
    own = {(int(address), number) for number in range(len(ports)) for address in configuration.answered_addresses(number)}
    near = {address for address, _ in own}
    own |= {(int(service.listen.address), -1) for service in configuration.services
            if service.listen.length == 32 and int(service.listen.address) not in near}
    prefixes = [(network, configuration.on_link(network.network_address)) for network in configuration.prefixes]
    routes = [(interface.network, 0, number, int(interface.ip)) for number, port in enumerate(ports)
              for interface in port.addresses]
    for route in configuration.routes:
        number, interface = configuration.on_link(route.gateway)
        routes.append((route.network, int(route.gateway), number, int(interface.ip)))
    routes.sort(key=lambda route: -route[0].prefixlen)
    return neighbours.Network(
        mac_high=_column(split_mac(mac)[0] for mac in macs), mac_low=_column(split_mac(mac)[1] for mac in macs),
        exception=_column(beside.index(number) if number in beside else -1 for number in range(len(beside))),
        beside=_column(beside), mtu=mtus, mss=_column([path_mss(configuration)]),
        own_address=_column(address for address, _ in sorted(own)), own_port=_column(port for _, port in sorted(own)),
        own_network=_column(int(network.network_address) for network, _ in prefixes),
        own_mask=_column(int(network.netmask) for network, _ in prefixes),
        own_network_port=_column(link[0] if link else -1 for _, link in prefixes),
        route_network=_column(int(route[0].network_address) for route in routes),
        route_mask=_column(int(route[0].netmask) for route in routes),
        route_gateway=_column(route[1] for route in routes), route_port=_column(route[2] for route in routes),
        route_source=_column(route[3] for route in routes),
        neighbours=np.zeros(NEIGHBOURS, neighbours.NEIGHBOUR).view(np.recarray),
        slots=np.full(4 * NEIGHBOURS, -1, np.int64), known=np.zeros(1, np.int64),
        announced=np.zeros(1, np.int64), duplicate=np.zeros(3, np.int64))


def want_neighbours(configuration, network):
    """Puts gateways and the next hops of targets into the neighbour table, to be kept fresh from the start.

    Returns the neighbour's number for each target, in order.
    """
    numbers = []
    for target in configuration.targets:
        hop = configuration.next_hop(target.ip)
        number = neighbours.add_neighbour(network, int(hop.address), hop.port)
        network.neighbours[number].wanted = 1
        mac = static_mac(target)
        if mac is not None:
            entry = network.neighbours[number]
            entry.mac_high, entry.mac_low = split_mac(mac)
            entry.state = neighbours.STATIC
        numbers.append(number)
    for route in configuration.routes:
        port, _ = configuration.on_link(route.gateway)
        network.neighbours[neighbours.add_neighbour(network, int(route.gateway), port)].wanted = 1
    return numbers


def source_entries(configuration, target):
    """Returns the source addresses (ints) toward a target and its pool's entries: index << 16 | port.

    A target that several services share has one pool, of all the addresses and ports that they allow.
    """
    allowed = {}
    for service, found, address in configuration.sources():
        if found.id == target.id:
            left_out = set(configuration.left_out_ports(service, address))
            low, high = service.source_ports
            allowed.setdefault(int(address), set()).update(set(range(low, high + 1)) - left_out)
    addresses = sorted(allowed)
    return addresses, [(number << 16) | port for number, address in enumerate(addresses)
                       for port in sorted(allowed[address])]


def make_claims(configuration):
    """Returns what TCP from targets is ours and not the kernel's: see `kernels.exception.is_ours`."""
    rows = {(int(target.ip), target.port, int(address), *service.source_ports)
            for service, target, address in configuration.sources()}
    return np.array(sorted(rows), np.int64).reshape(-1, 5)


def make_targets(configuration, numbers, share, steering):
    """Returns `Targets` and `SourcePorts`; targets with the same address and port share a pool of source ports.

    A pool has those that this worker owns, by its `share` (steering.Share) and `steering`.

    Entries are handed out as `settle_chances` orders them at first (ProxyEngine's row 8), then the oldest first.
    """
    rows = np.zeros(len(configuration.targets), services.TARGET).view(np.recarray)
    pools, members = {}, []
    for number, target in enumerate(configuration.targets):
        pool = pools.setdefault((target.ip, target.port), (len(pools), target))[0]
        rows[number] = (int(target.ip), target.port, numbers[number], pool, 0, services.UNKNOWN_SCALE)
    entries = []
    for _, target in pools.values():
        addresses, free = source_entries(configuration, target)
        entries.append((addresses, own_entries(share, steering, target, addresses, free) if free else free))
    size = max(max((len(free) for _, free in entries), default=1), 1)
    most = max((len(addresses) for addresses, _ in entries), default=0) or 1
    sources = source_ports.SourcePorts(
        ring=np.zeros((len(pools), size), np.uint32), head=np.zeros(len(pools), np.int64),
        free=_column(len(free) for _, free in entries),
        address=np.zeros((len(pools), most), np.int64),
        last=np.zeros((len(pools), most << 16), source_ports.LAST).view(np.recarray))
    for pool, (addresses, free) in enumerate(entries):
        sources.ring[pool, :len(free)] = free
        sources.address[pool, :len(addresses)] = addresses
    number_of = {target.id: number for number, target in enumerate(configuration.targets)}
    for _, identifiers, _, _ in balanced(configuration):
        members += [number_of[identifier] for identifier in identifiers]
    fall, retry = configuration.health.fall, configuration.health.retry
    return services.Targets(rows, _column(members), *(np.zeros(len(rows), np.int64) for _ in range(3)),
                            _column([fall, max(round(retry * 1_000_000 / wheel.TICK_MICROSECONDS), 1), 0, 0, 0])), sources


def balanced(configuration):
    """Returns (service, ids of targets, weights, select kernel) for each row of `Selection.services`: services, then groups."""
    weights = {target.id: target.weight for target in configuration.targets}
    own = [(service, service.members, None, service.select) for service in configuration.services]
    groups = [(service, group.targets, group.weights or None, group.balance)
              for service in configuration.services for group in service.groups]
    return [(service, identifiers, given or tuple(weights[identifier] for identifier in identifiers), kernel)
            for service, identifiers, given, kernel in own + groups]


def make_selection(configuration, targets, counted, workers=1):
    """Returns the `Selection` of a configuration and the names of its select kernels, in the order of their numbers.

    That is the alphabet's, and not the configuration's: with the same kernels it is the same loop, compiled once.
    What it has in common with `targets` and the counters (`counted`) is the same memory.
    """
    shares, payloads = balanced(configuration), configuration.payload_kernels
    kernels = sorted({kernel for _, _, _, kernel in shares})
    number_of = {target.id: number for number, target in enumerate(configuration.targets)}
    rows = np.zeros(len(shares), services.SERVICE).view(np.recarray)
    lines, patterns, first_member = [], b"", 0
    row_of = {(service.name, group.name): services.GROUP + row for row, (service, group) in enumerate(
        ((service, group) for service in configuration.services for group in service.groups), len(configuration.services))}
    for number, service in enumerate(configuration.services):
        fallback = row_of.get((service.name, service.default), number_of.get(service.default_target, -1))
        rows[number] = (int(service.listen.address), service.listen.port, service.listen.last_port, int(service.listen.network.netmask),
                        BINDINGS[service.binding],
                        services.STRAY_DROP if service.stray == "drop" else services.STRAY_RESET,
                        kernels.index(service.select), first_member, len(service.members), fallback,
                        len(lines), len(service.rules), OFFER, path_mss(configuration), service.attempts,
                        tuple(payloads.index(names[0]) if names else -1 for names in service.payloads),
                        services.UNKNOWN_SCALE, 0, 0)
        first_member += len(service.members)
        for rule in service.ordered_rules:
            pattern = content_rules.pattern_of(service.select, rule)
            length = len(pattern.octets)
            member = row_of[service.name, rule.group] if rule.group else service.members.index(rule.target)
            lines.append((len(patterns), length, member, HOWS[pattern.how], len(patterns) + length, rule.offset))
            patterns += pattern.octets + pattern.mask
    home = settle_groups(configuration, shares, kernels, rows, first_member)
    table = settle_tables(shares, rows)
    members = len(targets.members)
    selection = services.Selection(
        rows, np.array(lines or [(0,) * len(services.RULE)], services.RULE).view(np.recarray),
        np.frombuffer(patterns or b"\0", np.uint8).copy(), np.zeros((len(rows), services.MEMORY), np.int64),
        np.full(1, -1, np.int64), np.zeros(configuration.held_stride, np.uint8), np.full(2, -1, np.int64),
        assembled=np.zeros(4 * configuration.held_stride, np.uint8),
        client=np.zeros(4, np.int64), tick=np.zeros(1, np.int64), target=targets.members, home=home,
        weight=_column(weight for _, _, weights, _ in shares for weight in weights), current=np.zeros(members, np.int64),
        table=table, states=targets.states, until=targets.until, pending=np.zeros(len(targets.rows), np.int64), counted=counted,
        limits=target_limits(configuration, workers),
        reply=np.zeros(3, np.int64))
    return selection, kernels


def settle_groups(configuration, shares, kernels, rows, first_member):
    """Fills the rows of groups, behind those of services; returns which member of its service each member is (int64)."""
    home = [member for service in configuration.services for member in range(len(service.members))]
    for row, (service, identifiers, _, kernel) in enumerate(shares):
        if row < len(configuration.services):
            continue
        rows[row].port, rows[row].last_port, rows[row].fallback, rows[row].scale = -1, -1, -1, services.UNKNOWN_SCALE
        rows[row].payload_kernel = -1
        rows[row].select, rows[row].first_member, rows[row].members = kernels.index(kernel), first_member, len(identifiers)
        first_member += len(identifiers)
        home += [service.members.index(identifier) for identifier in identifiers]
    return _column(home)


def settle_tables(shares, rows):
    """Gives each row that is balanced by Maglev a table of its own; returns all of them (uint16)."""
    tables, start = [], 0
    for row, (_, identifiers, weights, kernel) in zip(rows, shares, strict=True):
        if kernel == "maglev":
            tables.append(select_maglev.make_table(identifiers, weights))
            row.table, row.places = start, len(tables[-1])
            start += len(tables[-1])
    return np.concatenate(tables) if tables else np.zeros(1, np.uint16)


def make_payload_rules(configuration):
    """Returns the `PayloadRules` of a configuration, and how many cells the payload kernels of a connection have together.

    Those without a rule share the first ones, in both directions; each rule has its own.
    """
    payloads, places, octets, most = configuration.payload_kernels, [], b"", shaping.USER_CELLS
    chains = np.zeros((len(configuration.services), 2, 2), np.int64)
    for number, service in enumerate(configuration.services):
        cell = shaping.USER_CELLS
        for side, chain in enumerate(service.payload_chains):
            chains[number, side] = len(places), len(places) + len(chain)
            for name, rule in chain:
                search, replacement = rule.octets if rule else (b"", b"")
                cells = payload_rules.CELLS.get(name, shaping.USER_CELLS)
                places.append((payloads.index(name), cell if rule else 0, cells, len(octets), len(search), len(octets) + 2 * len(search),
                               len(replacement), *((rule.first, rule.rate or 0, rule.burst or 0, int(rule.refuse_anonymous is not False))
                                                   if rule else (0, 0, 0, 0))))
                octets += search + bytes(octet_search.failures(search)) + replacement
                cell += cells if rule else 0
        most = max(most, cell)
    rules = payload_rules.allocate_payload_rules(len(places), len(chains), len(octets))
    rules.rows[:len(places)] = places
    rules.octets[:len(octets)] = np.frombuffer(octets, np.uint8)
    return rules._replace(chains=chains), most


def make_shaped(configuration):
    """Returns the `Shaped` of a configuration, next to nothing where no service has payload kernels."""
    engine = configuration.engine
    if configuration.payload_kernels:
        rules, cells = make_payload_rules(configuration)
        return shaping.allocate_shaped(engine.edits, engine.first_copies, engine.connections, configuration.held_stride, rules, cells)
    return shaping.allocate_shaped(0, 0, 1, 0, payload_rules.allocate_payload_rules(0, len(configuration.services), 0))


def make_proxied(configuration, origins):
    """Returns the `Proxied` of a configuration: who gets a PROXY header, and from whom one is taken.

    `origins` are those of its records.
    """
    listed = configuration.services
    trusted = [(number, int(network.network_address), int(network.netmask))
               for number, service in enumerate(listed) for network in service.accept_proxy_protocol]
    return proxy_protocol.allocate_proxied(
        [PROXY_VERSIONS[service.proxy_protocol] for service in listed], [int(service.toa) for service in listed],
        [EXPECTED[service.binding] if service.accept_proxy_protocol else 0 for service in listed],
        trusted, origins)


def make_connections(configuration, wraps, origins, workers=1):
    """Returns the `Connections` of one of so many `workers`, all free; `wraps` and `origins` are those of its records."""
    engine, capacity, opening = configuration.engine, configuration.engine.connections, configuration.opening_records
    spans = [{**dict(configuration.timeouts), **service.own_timeouts} for service in configuration.services]
    ticks = [[0] + [max(round(named[name] * 1_000_000 / wheel.TICK_MICROSECONDS), 1) for name in connection.STATES[1:]] for named in spans]
    counted = counters.allocate_counters(len(configuration.targets), len(configuration.services), len(records.CAUSES),
                                         len(connection.STATES))
    counted.states[connection.FREE] = capacity
    orders = ORDERS * bursts(configuration)
    return connection.Connections(
        hot=memory.allocate(capacity, connection.HOT), cold=memory.allocate(capacity, connection.COLD),
        free=free_list.allocate_free(capacity), openings=memory.allocate(opening, connection.OPENING),
        free_openings=free_list.allocate_free(opening),
        buckets=replacement.allocator(configuration.kernels, "lookup")(capacity),
        held=connection.allocate_held(engine.held_connections, engine.held_bytes, configuration.held_stride),
        segments=connection.allocate_segments(orders), parts=connection.allocate_parts(orders // 2),
        choices=connection.allocate_choices(orders), deliveries=connection.allocate_listed(orders),
        shaped=make_shaped(configuration), proxied=make_proxied(configuration, origins),
        waiting=waiting_room.allocate_waiting_room(engine.waiting_places, engine.waiting_per_connection,
                                                    configuration.port_count),
        touched=connection.allocate_listed(orders), releases=connection.allocate_listed(orders),
        timeouts=np.array(ticks, np.int64).reshape(-1, len(connection.STATES)),
        budget=_column([engine.reset_rate, engine.reset_rate, 0, -1, engine.ack_storm]),
        secret=np.zeros(2, np.int64),
        lingering=np.full((connection.LINGERING, 2), -1, np.int64), limits=make_limits(configuration, workers),
        wraps=wraps, counters=counted)


def line_settings(chosen, direction):
    """Returns the settings of a port's line (see kernels.faults) in a direction, or None where it has no faults."""
    if chosen is None or not chosen.struck(direction):
        return None
    rates = [round(rate * faults.ALWAYS) for rate in (chosen.loss, chosen.duplicate, chosen.flip, chosen.reorder)]
    spans = [round(span * 1_000_000) for span in (chosen.jitter, chosen.delay, chosen.reorder_delay)]
    return [*rates, *spans, chosen.queue]


def make_faults(configuration):
    """Returns the `Faults` of a configuration's ports."""
    struck = [port.faults for port in configuration.ports] + [None] * len(configuration.exception_ports)
    chosen = [(table, direction) for table in struck for direction in ("receive", "transmit")]
    return faults.allocate_faults([line_settings(*line) for line in chosen],
                                  [0 if table is None else table.seed for table, _ in chosen], OUTBOX * bursts(configuration))


def make_state(configuration, device, arena, macs, ticks_now, hertz, share=ALONE):
    """Returns a worker's `State` and the names of its select kernels. Of what there is once an engine it gets its `share`.

    `device` and `arena` are those of its ports, `macs` the ports' addresses (ints), exception ports behind the others;
    `ticks_now` and `hertz` say what the clock that `native.ticks` reads shows now, and how fast it runs.
    """
    if configuration.engine.mode == "generator":
        from pipeline.generator_state import make_generator_state
        return make_generator_state(configuration, device, arena, macs, ticks_now, hertz), []
    configuration = part_of(configuration, share.workers)
    network = make_network(configuration, macs)
    network.announced[0] = 0 if share.worker == 0 else arp.ANNOUNCEMENTS
    steering, inputs = make_steering(configuration, share)
    targets, sources = make_targets(configuration, want_neighbours(configuration, network), share, steering)
    engine = configuration.engine
    accepts = any(service.accept_proxy_protocol for service in configuration.services)
    kept = records.allocate_records(engine.detailed_records, engine.connections, engine.records, engine.connections if accepts else 0)
    connections = make_connections(configuration, kept.wraps, kept.origins, share.workers)
    selection, kernels = make_selection(configuration, targets, connections.counters.targets, share.workers)
    state = State(
        control=np.zeros(8, np.int64), clock=_column([ticks_now, 0, round((1 << 32) * 1_000_000 / hertz)]),
        idle=_column([engine.idle_sleep_us if engine.idle == "backoff" else 0, EMPTY_PASSES]),
        device=device, base=_column([arena.base]),
        packets=arena.native, batch=batch.allocate_batch(batch.BURST), connections=connections, selection=selection,
        targets=targets, sources=sources, network=network,
        wheel=replacement.allocator(configuration.kernels, "timers")(engine.connections, connections.cold),
        records=kept,
        outbox=outbox.allocate_outbox(len(macs), OUTBOX * bursts(configuration)), requests=connection.allocate_listed(ORDERS // 4),
        expired=np.zeros(TIMERS_A_PASS, np.int64), fresh=np.zeros(OUTBOX * bursts(configuration), np.int64),
        reserve=_column([configuration.transmit_descriptors, -1, 0]), burst=_column([engine.burst]),
        faults=make_faults(configuration), claims=make_claims(configuration),
        mailbox=kernel_neighbours.allocate_mailbox(MAILBOX if configuration.exception_ports else 1), inputs=inputs,
        steering=steering, observed=np.zeros(observe.OBSERVED, np.int64), recorder=recorder.allocate_recorder(),
        capture=recorder.allocate_recorder(), profile=profile.allocate_profile(), access=make_access(configuration),
        cookies=syn_cookies.allocate_cookies(engine.syn_cookies_from))
    settle_chances(state, [secrets.randbits(32) for _ in range(2)])
    return state, kernels


def settle_chances(state, secret):
    """Settles by a `secret` (two ints of 32 bits) all that is random in a fresh state, the same on every machine.

    That is the key of the initial sequence numbers, and the order in which source ports are handed out at first, another one
    toward each target.
    """
    state.connections.secret[:] = secret
    for pool, free in enumerate(state.sources.free):
        words = [*map(int, secret), pool]
        seed = np.frombuffer(hashlib.sha256(repr(words).encode()).digest()[:8], "<u8")
        entries = np.sort(state.sources.ring[pool, :free])
        mixed = entries.astype(np.uint64) + seed
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # SplitMix64's (Steele et al., 2014)
            mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
        state.sources.ring[pool, :free] = entries[np.argsort(mixed, kind="stable")]


def address_text(number):
    """Returns an IPv4 address (int) as text."""
    return str(ipaddress.IPv4Address(int(number)))
