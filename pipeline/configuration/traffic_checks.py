"""What has to hold between the parts of a configuration of `mode = "generator"`; each check yields Faults."""
from pipeline.configuration.faults import Fault
from pipeline.configuration.values import place_in_network, suggestion
from pipeline.errors import ConfigurationError

MOST_ADDRESSES = 4096


def missing(configuration):
    """Yields what a generator cannot do without, and what it has no use for."""
    parts = [(("ports", index), port, "addresses") for index, port in enumerate(configuration.ports)]
    for place, table, key in [*parts, ((), configuration, "targets"), ((), configuration, "generator")]:
        if not getattr(table, key):
            yield Fault((*place, key), f"is missing; it must be {type(table).model_fields[key].description}")
    for key in ("services", "kernels"):
        if getattr(configuration, key):
            yield Fault((key,), 'is not used with engine.mode = "generator", which is both ends itself; it must go')
    if configuration.generator and not configuration.generator.clients and not configuration.generator.servers:
        yield Fault(("generator",), "must have a table [generator.clients], or [generator.servers], or both")


def _targets(configuration):
    known = [target.id for target in configuration.targets]
    for role in ("clients", "servers"):
        table = getattr(configuration.generator, role)
        for place, identifier in enumerate(table.targets if table else ()):
            if identifier not in known:
                yield Fault(("generator", role, "targets", place), "is not the id of one of [[targets]]"
                            + suggestion(identifier, known))
    seen = {}
    for index, target in enumerate(configuration.targets):
        first = seen.setdefault((target.ip, target.port), index)
        if first != index:
            yield Fault(("targets", index, "ip"), f"with port = {target.port} is already targets[{first}]; "
                        "two targets must differ in ip or port")


def _servers(configuration):
    for target in configuration.played_targets:
        index = configuration.targets.index(target)
        link = configuration.on_link(target.ip)
        if link is None and not any(target.ip in route.network for route in configuration.routes):
            yield Fault(("targets", index, "ip"), "is played by the generator; it must be in a network of a port, or of [[routes]]")
        elif link and (reason := place_in_network(target.ip, link[1].network)):
            yield Fault(("targets", index, "ip"), f"is the {reason} of {link[1].network}; it must be a host's")


def _clients(configuration):
    clients = configuration.generator.clients
    if clients is None:
        return
    place = ("generator", "clients")
    if configuration.next_hop(clients.connect.address) is None:
        yield Fault((*place, "connect"), "cannot be reached; it must be in a network of a port, or [[routes]] must lead there")
        return
    count = sum(last - first + 1 for first, last in clients.source_addresses)
    if count > MOST_ADDRESSES:
        yield Fault((*place, "source_addresses"), f"are {count} addresses; they must be at most {MOST_ADDRESSES}")
        return
    addresses = list(configuration.client_addresses)
    if len(set(addresses)) != len(addresses):
        yield Fault((*place, "source_addresses"), "names an address twice")
    elif max(map(int, addresses)) - min(map(int, addresses)) > 1 << 20:
        yield Fault((*place, "source_addresses"), "are more than 1,048,576 apart; they must be nearer to each other")
    if clients.connect.address in addresses:
        yield Fault((*place, "connect"), "is one of the clients' own addresses")
    low, high = clients.source_ports
    for target in configuration.played_targets:
        if target.ip in addresses and low <= target.port <= high:
            yield Fault((*place, "source_ports"),
                        f'leads clients to {target.ip}:{target.port}, where target "{target.id}" is played')


def _sizes(configuration):
    from pipeline.generator_state import texts
    traffic = configuration.generator
    for key, said in zip(("request", "response"), texts(configuration), strict=True):
        packets, size = getattr(traffic, f"{key}_packets"), getattr(traffic, f"{key}_bytes")
        longest = max(map(len, said))
        if packets and size and size < longest + 4:
            yield Fault(("generator", f"{key}_bytes"), f"has no room for its text and four bytes of serial number; it must be at "
                        f"least {longest + 4}, or 0 for the text alone")
        if packets > 1 and not size:
            yield Fault(("generator", f"{key}_packets"), f"needs {key}_bytes, for the text alone is one packet")
        if packets * (size or longest) >= 1 << 30:
            yield Fault(("generator", f"{key}_packets"), "are more than 1 GiB in a connection")


def _proxy(configuration):
    """The other configuration has to be right, and to fit: the same cables, another core."""
    if configuration.generator.proxy is None:
        return
    from pipeline.configuration import load
    place = ("generator", "proxy")
    try:
        proxy = load(configuration.generator.proxy)
    except ConfigurationError as error:
        yield Fault(place, f"is not right: {error}")
        return
    ours, theirs = ({port.device for port in each.ports if port.driver == "ring"} for each in (configuration, proxy))
    if proxy.engine.mode == "generator":
        yield Fault(place, "is a generator itself")
    elif ours != theirs or not ours:
        yield Fault(place, f"has other cables, {', '.join(sorted(theirs)) or 'none'}; each device \"ring:NAME\" of the one must be "
                    "in the other")
    elif set(proxy.engine.cores) & set(configuration.engine.cores):
        yield Fault(place, f"has its worker on the same core, {proxy.engine.cores[0]}; engine.cores must differ")


CHECKS = (_targets, _servers, _clients, _sizes, _proxy)
