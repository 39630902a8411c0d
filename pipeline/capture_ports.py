"""Finds for the packets of a capture the ports of a configuration that they come in by."""
import collections
import ipaddress

from pipeline.errors import ConfigurationError
from pipeline.io.places import network_of
from pipeline.io.recording import BlockBuilder, HeldRecording, frames_of
from pipeline.kernels import headers, recorder


def addresses_of(frame):
    """Returns the source and destination address (ints) of a frame, of ARP those of sender and target; None where it has none."""
    kind, at = network_of(frame)
    rest, is_arp = frame[at:], kind == headers.ETHERTYPE_ARP
    first, second = (14, 24) if is_arp else (12, 16)
    if not (is_arp or kind == headers.ETHERTYPE_IPV4) or len(rest) < second + 4:
        return None
    return int.from_bytes(rest[first:first + 4], "big"), int.from_bytes(rest[second:second + 4], "big")


def _ports_by_address(configuration):
    """Returns a function from a frame to the number of the port that it comes in by, None where it is not for us."""
    owners = {int(address): number for number in range(len(configuration.ports)) for address in configuration.answered_addresses(number)}
    listening = {int(service.listen.address) for service in configuration.services if service.listen.length == 32} - owners.keys()
    owners_of_prefixes = [(network, configuration.on_link(network.network_address)) for network in configuration.prefixes]

    def port_of(frame):
        """Returns the number of the port for a frame."""
        found = addresses_of(frame)
        if found is None:
            return None
        if found[1] in listening:
            hop = configuration.next_hop(ipaddress.IPv4Address(found[0]))
            return hop.port if hop else 0
        for network, link in owners_of_prefixes:
            if ipaddress.IPv4Address(found[1]) in network and found[1] not in owners:
                hop = None if link else configuration.next_hop(ipaddress.IPv4Address(found[0]))
                return link[0] if link else hop.port if hop else 0
        return owners.get(found[1])
    return port_of


def _by_name(recording, names):
    numbers = {number: names.index(name) for number, name in enumerate(recording.description.ports)}
    return lambda frame: numbers[frame.port]


def assigned(recording, configuration, port=None):
    """Returns a capture as a recording of a configuration's ports, and how many packets were left out as they are not for us.

    With a `port` (name) all come in by that one; else interfaces that have the ports' names are these ports; else a packet comes in
    by the port that owns the address it is sent to, and what is sent to nobody here is left out. The MAC address of a port is
    then that to which most of its packets are sent; targets that answer without having been asked by ARP have that of theirs.
    """
    names, described = list(configuration.port_names), recording.description
    if port is not None and port not in names:
        raise ConfigurationError(f'--port "{port}": the configuration has no port of that name; it must be one of {", ".join(names)}')
    named = port is None and set(described.ports) <= set(names)
    if named and list(described.ports) == names and described.macs != (None,) * len(names):
        return recording, 0
    by_address = _ports_by_address(configuration)
    choose = (lambda frame: names.index(port)) if port is not None else _by_name(recording, names) if named else (
        lambda frame: by_address(frame.octets))
    return _moved(recording, configuration, names, choose)


def _moved(recording, configuration, names, choose):
    builder, left_out, macs = BlockBuilder(), 0, [collections.Counter() for _ in names]
    known, asked = {}, set()
    for turn, frame in enumerate(frames_of(recording)):
        number = choose(frame)
        if number is None:
            left_out += 1
            continue
        builder.add(frame.time, number, [frame.octets], recorder.RECEIVED, [frame.length], turn)
        if not frame.octets[0] & 1:
            macs[number][int.from_bytes(frame.octets[:6], "big")] += 1
        source = (addresses_of(frame.octets) or (None,))[0]
        if network_of(frame.octets)[0] == headers.ETHERTYPE_ARP:
            asked.add(source)
        elif source is not None:
            known[source] = int.from_bytes(frame.octets[6:12], "big")
    targets = {target.id: known[int(target.ip)] for target in configuration.targets
               if target.mac is None and int(target.ip) in known.keys() - asked}
    described = recording.description._replace(
        ports=tuple(names), macs=tuple(count.most_common(1)[0][0] if count else None for count in macs),
        more={**recording.description.more, "targets": targets, "passes": False})
    return HeldRecording(described, builder.blocks(), recording.path), left_out
