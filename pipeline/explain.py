"""What `check` says: what a configuration would set up, as facts for programs and as text for people."""
from pipeline.configuration import warnings


def facts(configuration):
    """Returns what would be set up as a JSON-able dict; `configuration` in it has every default filled in."""
    return {
        "valid": True,
        "stats_socket": configuration.engine.stats_socket_path,
        "held_memory": configuration.engine.held_connections * configuration.held_stride,
        "ports": [_port(configuration, index) for index in range(len(configuration.ports))],
        "targets": [_target(configuration, target) for target in configuration.targets
                    if target not in configuration.played_targets],
        "services": [_service(configuration, service) for service in configuration.services],
        "warnings": warnings(configuration),
        "configuration": configuration.model_dump(mode="json"),
    }


def _port(configuration, index):
    port = configuration.ports[index]
    return {"name": port.name, "device": port.device, "mac": port.mac,
            "addresses": [str(interface) for interface in port.addresses],
            "answers_arp_for": [] if port.exception else [str(address) for address in configuration.answered_addresses(index)],
            "joined_to": configuration.ports[index ^ 1].name if configuration.engine.mode == "forward" else None,
            "faults": port.faults.model_dump(mode="json") if port.faults else None,
            "exception": _exception(configuration, port, index)}


def _exception(configuration, port, index):
    """Returns the exception port beside a port (dict), with the addresses that its interface gets, or None."""
    if port.exception is None:
        return None
    return {"device": port.exception.device, "interface": port.exception.interface,
            "addresses": [str(address) for address in configuration.interface_addresses(index)]}


def _target(configuration, target):
    hop = configuration.next_hop(target.ip)
    return {"id": target.id, "ip": str(target.ip), "port": target.port, "through": configuration.ports[hop.port].name,
            "gateway": None if hop.address == target.ip else str(hop.address), "mac": target.mac,
            "linux_if": target.linux_if, "used_by": [service.name for service in configuration.services
                                                     if target.id in service.members]}


def _service(configuration, service):
    addresses = sorted({address for identifier in service.members
                        for address in configuration.source_addresses(service, configuration.target(identifier))})
    left_out = {str(address): configuration.left_out_ports(service, address) for address in addresses}
    return {"name": service.name, "listen": str(service.listen), "binding": service.binding, "select": service.select,
            "payload_to_target": service.payload_to_target, "payload_to_client": service.payload_to_client,
            **({"payload_rules": [rule.model_dump(exclude_unset=True) for rule in service.payload_rules]} if service.payload_rules else {}),
            "targets": list(service.members), "default": service.default, "stray": service.stray,
            "attempts": service.attempts, **({"timeouts": service.own_timeouts} if service.own_timeouts else {}),
            "rules": [{"match": rule.match, "target": rule.target or rule.group,
                       **{key: getattr(rule, key) for key in ("exact", "mask", "offset") if getattr(rule, key)}} for rule in service.rules],
            **({"groups": [{"name": group.name, "balance": group.balance, "targets": list(group.targets)}
                           for group in service.groups]} if service.groups else {}),
            "source_addresses": [str(address) for address in addresses], "source_ports": list(service.source_ports),
            "left_out_source_ports": {address: ports for address, ports in left_out.items() if ports}}


def explanation(configuration, name):
    """Returns the text that explains the configuration in the file `name` (str)."""
    known = facts(configuration)
    lines = [f"{name} is valid. `run` would set up:", ""]
    lines += _engine_lines(configuration, known)
    for port in known["ports"]:
        lines += _port_lines(port)
    lines += [f"route {route.network} through {route.gateway} (port {_port_of(configuration, route.gateway)})"
              for route in configuration.routes]
    if known["services"]:
        lines.append("")
    for service in known["services"]:
        lines += _service_lines(service)
    lines += [_target_line(target) for target in known["targets"]]
    if configuration.engine.mode == "proxy":
        lines += ["", "timeouts in seconds: " + ", ".join(f"{key} {value:g}" for key, value in configuration.timeouts)]
    if configuration.kernels:
        lines.append("kernels: " + ", ".join(f"{slot} = {kernel}" for slot, kernel in configuration.kernels.items()))
    lines += _bed_lines(configuration)
    lines += [f"warning: {warning}" for warning in known["warnings"]]
    return "\n".join(lines)


def _port_of(configuration, address):
    return configuration.ports[configuration.next_hop(address).port].name


STEERED = {"auto": "what their devices can do", "rss": "the hash of RSS", "software": "hand-over between workers",
           "port": "rules of the NIC for their worker's source ports", "address": "rules of the NIC for their worker's address"}
"""What `steering` and `flow_steering` mean."""


def _engine_lines(configuration, known):
    engine = configuration.engine
    place = f" in network namespace {engine.network_namespace}" if engine.network_namespace else ""
    idle = "spins when idle" if engine.idle == "spin" else f"sleeps up to {engine.idle_sleep_us} us when idle"
    records = f"the last {engine.records:,} session records" if engine.detailed_records else "no session records"
    workers = (f"a worker on core {engine.cores[0]}" if len(engine.cores) == 1 else
               f"{len(engine.cores)} workers on cores {', '.join(map(str, engine.cores))}")
    first = f"engine {engine.name}{place}: {workers} ({idle}), Python on core {engine.main_core}"
    if engine.mode == "forward":
        return [first, f"  forwards plainly between pairs of ports; {engine.mbufs:,} mbufs, bursts of {engine.burst}",
                f"  huge pages: {engine.huge_pages}; statistics at {known['stats_socket']}"]
    if engine.mode == "generator":
        return [first, f"  {engine.mbufs:,} mbufs, bursts of {engine.burst}, {engine.connections:,} servers' connections at once",
                f"  on a signal up to {engine.drain_timeout:g} s to drain",
                f"  huge pages: {engine.huge_pages}; statistics at {known['stats_socket']}", *_traffic_lines(configuration)]
    steering = [f"  clients' packets find their worker by {STEERED[engine.steering]}, targets' by {STEERED[engine.flow_steering]}"]
    return [
        first,
        *(steering if len(engine.cores) > 1 else []),
        *(["  isolation is checked: bounds, guard pages, owner tags; for finding faults, it is slow"] if engine.isolation == "checked" else []),
        f"  {engine.connections:,} connections, of which {configuration.opening_records:,} may be opening; {engine.mbufs:,} mbufs, "
        f"bursts of {engine.burst}, {records}",
        f"  first payloads held: {engine.held_connections:,} of {engine.held_bytes:,} bytes "
        f"({known['held_memory'] / 2**20:,.0f} MiB)",
        f"  segments before those that they follow: {engine.waiting_places:,} may wait, "
        f"{engine.waiting_per_connection:,} a direction of a connection",
        *([f"  payload kernels: a log of {engine.edits:,} edits; first copies kept until acknowledged: "
           f"{engine.first_copies:,} pieces of 2 KiB"] if configuration.payload_kernels else []),
        f"  on a signal up to {engine.drain_timeout:g} s to drain; "
        f"at most {engine.reset_rate:,} RSTs a second to strays",
        f"  huge pages: {engine.huge_pages}; statistics at {known['stats_socket']}",
    ]


def _traffic_lines(configuration):
    """Returns what a generator's clients and servers will do (list of str)."""
    traffic, clients, found = configuration.generator, configuration.generator.clients, []
    if clients:
        low, high = clients.source_ports
        limits = [f"{limit:,} {what}" for limit, what in ((clients.cps_limit, "a second"), (clients.max_open, "at once"),
                                                           (clients.test_size, "in all")) if limit]
        found += [f"clients connect to {clients.connect} from {', '.join(map(str, clients.source_addresses)) or 'the port'}, "
                  f"ports {low} to {high}: at most {', '.join(limits)}"]
    if configuration.played_targets:
        found += [f"servers: {', '.join(f'{target.id} on {target.ip}:{target.port}' for target in configuration.played_targets)}"]
    found += [f"  a client says {traffic.request_packets} x {traffic.request_bytes} bytes, a server {traffic.response_packets} x "
              f"{traffic.response_bytes}; the {traffic.closes_first} closes first"]
    return found + ([f"with the proxy of {traffic.proxy} in the same process"] if traffic.proxy else [])


BOUND = {"delayed": "is bound to a target by its first payload", "immediate": "is bound to a target once the client is there",
         "simple": "is bound to a target at its SYN, which goes on to it"}
"""What `binding` means for a connection."""


def _port_lines(port):
    lines = [f"port {port['name']}: {port['device']}" + (f", MAC {port['mac']}" if port["mac"] else "")]
    if port["joined_to"]:
        lines.append(f"  joined to port {port['joined_to']}")
    if port["faults"]:
        lines.append("  faults: " + ", ".join(f"{key} {value}" for key, value in port["faults"].items()))
    if port["addresses"]:
        lines.append(f"  addresses {', '.join(port['addresses'])}")
    own = {address.partition("/")[0] for address in port["addresses"]}
    if port["exception"]:
        exception = port["exception"]
        lines.append(f"  the kernel has {', '.join(exception['addresses'])} on {exception['interface']} "
                     f"({exception['device'].partition(',')[0]}), unless that has others: ARP, ICMP and all that is not ours")
    virtual = [address for address in port["answers_arp_for"] if address not in own]
    return lines + ([f"  answers ARP for {', '.join(virtual)} as well"] if virtual else [])


def _service_lines(service):
    unmatched = "is refused with a RST" if service["default"] == "refuse" else f"goes to {service['default']}"
    bound = BOUND[service["binding"]]
    stray = "answered with a RST" if service["stray"] == "reset" else "dropped"
    low, high = service["source_ports"]
    lines = [f"service {service['name']} on {service['listen']}: a connection {bound}, by {service['select']} "
             f"among {', '.join(service['targets'])}"]
    lines += [f"  {rule['match']} goes to {rule['target']}" for rule in service["rules"]]
    lines += [f"  what {who} send is shown to {service[key]}" for key, who in
              (("payload_to_target", "clients"), ("payload_to_client", "targets")) if service[key]]
    for rule in service.get("payload_rules", ()):
        told = ", ".join(f"{key} = {value}" for key, value in rule.items() if key not in ("direction", "kernel"))
        lines.append(f"  what {'clients' if rule['direction'] == 'to_target' else 'targets'} send is shown to {rule['kernel']}"
                     + (f" ({told})" if told else ""))
    silent = "gets a RST" if service["default"] == "refuse" else f"goes to {service['default']}"
    if service["binding"] == "delayed":
        lines.append(f"  a client that says too little within first_data {silent}")
    if service["binding"] != "simple":
        lines.append(f"  a target that fails is replaced, up to {service['attempts']} targets a connection")
    lines.append(f"  what matches nothing {unmatched}; segments of no connection are {stray}")
    lines.append(f"  connects from {', '.join(service['source_addresses'])}, ports {low} to {high}")
    for address, ports in service["left_out_source_ports"].items():
        lines.append(f"  except on {address} port {', '.join(map(str, ports))}, where services listen")
    return lines


def _target_line(target):
    way = (f"through {target['gateway']} " if target["gateway"] else "") + f"on port {target['through']}"
    fixed = target["mac"] or (f"that of {target['linux_if']}" if target["linux_if"] else None)
    return f"target {target['id']}: {target['ip']}:{target['port']} {way}" + (f", MAC {fixed}" if fixed else "")


def _bed_lines(configuration):
    if configuration.bed is None:
        return []
    lines = ["", f"bed of {configuration.bed.device} around it, in network namespaces that are removed at the end:"]
    for host in configuration.bed.hosts:
        web = f", web server on port {host.web_port}" if host.web else ""
        lines.append(f"  {host.role} {host.name}: {host.address} on the network of port {host.port}{web}")
    return lines
