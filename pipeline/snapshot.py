"""Counters of a running engine as plain Python: what `run --json`, `stats` and `top` show."""
import numpy as np

from pipeline.assemble import address_text
from pipeline.kernels import connection, counters, faults, neighbours, records

SIDES = ("client", "target")


def _named(names, values):
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def drops_and_notices(counted):
    """Returns the drops and the notices (dict of two) of a worker's Counters that are not 0, by name."""
    return {"drops": {reason: count for reason, count in _named(counters.DROP_REASONS, counted.drops).items() if count},
            "notices": {notice: count for notice, count in _named(counters.NOTICES, counted.notices).items() if count}}


def of_worker(core, state):
    """Returns the counters of a worker (dict); may be called while it runs."""
    counted = state.counters
    totals = _named(counters.TOTALS, counted.totals)
    held = state.connections.held
    return {
        "core": core,
        "bursts": totals["bursts"], "packets": totals["packets"], "transmitted": totals["transmitted"],
        "passes": totals["loops"], "sleeps": totals["sleeps"], "expired_timers": totals["expired_timers"],
        "connections": {"open": totals["open"], "opened": totals["opened"], "closed": totals["closed"],
                        "table": _filled(state.connections.buckets),
                        "held": len(held.length) - int(held.free_count[0])},
        "states": _named(connection.STATES[1:], counted.states[1:]),
        "sides": {side: _named(counters.EVENTS, counted.events[number]) for number, side in enumerate(SIDES)},
        "release_causes": {side: {cause: count for cause, count in _named(records.CAUSES, counted.causes[number]).items()
                                  if count} for number, side in enumerate(SIDES)},
        **drops_and_notices(counted),
        "observed": np.trim_zeros(state.observed, "b").tolist(),
    }


def _filled(buckets):
    """Returns how many places of a flow table are filled, None where it has no tags, which are not 0 there."""
    named = getattr(buckets, "dtype", np.dtype(np.int64)).names or ()
    return int(np.count_nonzero(buckets["tag"])) if "tag" in named else None


def of_faults(stages, number):
    """Returns what the faults of the port with that number have done (dict), by direction; {} without faults.

    `stages` are the Faults of all workers.
    """
    shown = {}
    for direction, line in (("receive", 2 * number + faults.RECEIVING), ("transmit", 2 * number + faults.TRANSMITTING)):
        if stages[0].active[line]:
            waiting = sum(stage.written[2 * line:2 * line + 2] - stage.read[2 * line:2 * line + 2] for stage in stages)
            shown[direction] = {**_named(faults.FAULTS, sum(stage.counters[line] for stage in stages)), "waiting": int(waiting.sum())}
    return shown


def of_ports(configuration, ports, states):
    """Returns the counters of the ports (list of dict): the device's own, and `unsent`, what it had no room for."""
    shown, exceptions = [], of_exceptions(configuration, ports, states)
    for number, (configured, port) in enumerate(zip(configuration.ports, ports[:len(configuration.ports)], strict=True)):
        counted = port.statistics()
        shown.append({
            "name": configured.name, "device": configured.device, "mac": mac_text(port.mac >> 32, port.mac & 0xFFFFFFFF),
            "received": counted["received_packets"], "transmitted": counted["sent_packets"],
            "received_octets": counted["received_octets"], "transmitted_octets": counted["sent_octets"],
            "missed": counted["missed"], "errors": counted["receive_errors"] + counted["send_errors"],
            "no_mbuf": counted["no_mbuf"], "unsent": int(sum(state.outbox.unsent[number] for state in states)),
            **({"faults": struck} if (struck := of_faults([state.faults for state in states], number)) else {}),
            **({"exception": exceptions[number]} if number in exceptions else {})})
    return shown


def of_exceptions(configuration, ports, states):
    """Returns the counters of the exception ports (dict), by the number of the port beside each."""
    shown = {}
    for number, (beside, exception) in enumerate(configuration.exception_ports, len(configuration.ports)):
        counted = ports[number].statistics()
        shown[beside] = {"device": exception.device, "interface": exception.interface, "to_kernel": counted["sent_packets"],
                         "from_kernel": counted["received_packets"],
                         "unsent": int(sum(state.outbox.unsent[number] for state in states))}
    return shown


def of_targets(configuration, states):
    """Returns what all workers have counted for each target (list of dict)."""
    counted = sum(state.counters.targets for state in states)
    return [{"id": target.id, "ip": str(target.ip), "port": target.port,
             **_named(counters.OF_TARGET, counted[number])}
            for number, target in enumerate(configuration.targets)]


def of_payload_rules(service, number, states):
    """Returns what all workers have counted for the payload rules of a service (dict), nothing where there are none."""
    if not service.payload_rules:
        return {}
    rules = [state.connections.shaped.rules for state in states]
    placed = [(rule, int(rules[0].chains[number, side, 0]) + place) for side, chain in enumerate(service.payload_chains)
              for place, (_, rule) in enumerate(chain) if rule]
    return {"payload_rules": [{"direction": rule.direction, "kernel": rule.kernel, "hits": int(sum(each.hits[row] for each in rules))}
                              for rule, row in placed]}


def of_services(configuration, states):
    """Returns what all workers have counted for each service (list of dict)."""
    counted = sum(state.counters.services for state in states)
    return [{"name": service.name, "listen": str(service.listen),
             **_named(counters.OF_SERVICE, counted[number]), **of_payload_rules(service, number, states)}
            for number, service in enumerate(configuration.services)]


def mac_text(high, low):
    """Returns a MAC address in two halves as text."""
    return ":".join(f"{octet:02x}" for octet in (int(high) << 32 | int(low)).to_bytes(6, "big"))


def of_neighbours(configuration, states):
    """Returns the neighbours that are known (list of dict), each as the worker knows it that has heard of it last."""
    latest = {}
    for state in states:
        for entry in state.network.neighbours[:int(state.network.known[0])]:
            known = latest.get(int(entry["address"]))
            if known is None or (entry["state"] >= neighbours.REACHABLE, entry["confirmed"]) > (
                    known["state"] >= neighbours.REACHABLE, known["confirmed"]):
                latest[int(entry["address"])] = entry
    return [{"address": address_text(entry["address"]), "mac": mac_text(entry["mac_high"], entry["mac_low"]),
             "state": neighbours.NEIGHBOUR_STATES[entry["state"]], "port": configuration.ports[entry["port"]].name}
            for entry in latest.values()]


def taken_records(configuration, states, started):
    """Takes the session records that all workers have finished since the last call (list of dict), oldest first.

    `started` is as in `record_dict`.
    """
    found = []
    for state in states:
        kept = state.records
        head, tail = int(kept.head[0]), int(kept.tail[0])
        found += [kept.ring[number % len(kept.ring)].copy() for number in range(tail, head)]
        kept.tail[0] = head
    return [record_dict(configuration, record, started) for record in sorted(found, key=lambda record: int(record["closed"]))]


def record_dict(configuration, record, started):
    """Returns a finished session record as a dict; `started` is the time (datetime) of the engine's microsecond 0."""
    import datetime

    def endpoint(field, side):
        return f"{address_text(record[f'{field}_address'][side])}:{record[f'{field}_port'][side]}"

    through = record["origin_address"] != 0
    bound = record["target"] != connection.NO_TARGET
    opened = started + datetime.timedelta(microseconds=int(record["opened"]))
    return {
        "opened": opened.isoformat(timespec="microseconds"),
        "duration_us": int(record["closed"] - record["opened"]),
        "service": configuration.services[record["service"]].name,
        "client": f"{address_text(record['origin_address'])}:{record['origin_port']}" if through else endpoint("remote", 0),
        **({"through": endpoint("remote", 0)} if through else {}), "listen": endpoint("local", 0),
        "target": configuration.targets[record["target"]].id if bound else None,
        "proxy": endpoint("local", 1) if bound else None,
        "release": {side: records.CAUSES[record["cause"][number]] for number, side in enumerate(SIDES)},
        "octets": {side: int(record["octets"][number]) for number, side in enumerate(SIDES)},
        "states": {side: records.steps_of(record, number) for number, side in enumerate(SIDES)},
    }
