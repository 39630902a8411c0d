"""The slots of the loop: what a kernel in each is given, what it has to do, and which kernels of ours there are.

Nothing here is imported for its code, so that a configuration can be read without Numba.
"""
import ast
import pathlib
from typing import NamedTuple


class Choice(NamedTuple):
    """A kernel of ours for a slot."""

    name: str
    place: str    # "module:function"
    about: str


class Slot(NamedTuple):
    """A slot. The first of `choices` is the default and the reference, but each service names its own select and payload."""

    about: str
    called: str           # where and how often
    parameters: dict      # name to meaning, in order
    answer: str           # what has to be done, and returned
    choices: tuple
    beside: tuple = ()    # functions that its module may bring along, all of them or none
    also: tuple = ()      # functions that it may bring along with those; without them nothing is done there
    spared: int = 0       # how many of the last parameters a kernel may do without


_PACKETS = {
    "packets": "headers.Packets: the arena's records by offset, record_at(packets.tcp, batch.transport[row]); packets.octets are its bytes",
    "base": "int64, address of the arena: offset = address - base",
    "batch": "batch.Batch: int64 columns, one packet a row (kernels/batch.py says what each one holds)",
    "count": "int64, rows 0 .. count - 1 are this burst",
}
_BATCH = {name: _PACKETS[name] for name in ("batch", "count")}
_CONNECTIONS = {"connections": "connection.Connections: hot and cold records by number, flow = connection * 2 + side, counters"}
_NETWORK = {"network": "neighbours.Network: ports, routes and neighbours"}
_SERVICES = {"services": "services.SERVICE[n]", "targets": "services.Targets"}
_RECORDS = {"records": "records.Records: session records being written, and the ring of finished ones"}
_NOW = {"now": "int64, microseconds of the engine's clock (a tick is 10,000)"}

SLOTS = {
    "parse": Slot(
        "Finds the headers of every packet of a burst.", "`stages` in pipeline/loop.py, first, once a burst",
        {**_PACKETS, "port": "int64, the engine's port that the burst came in by", **_NETWORK,
         "counters": "counters.Counters: drops by reason"},
        "Fills all columns of rows 0 .. count - 1 from their mbufs (batch.mbuf); a malformed one gets verdict DROP and is counted. "
        "Returns nothing.",
        (Choice("offset", "pipeline.kernels.parse:parse", "Finds all headers by offset; malformed packets are counted."),
         Choice("c", "pipeline.kernels.twins:parse", "The same in C, a yardstick."))),
    "hash": Slot(
        "Hashes the key of a flow.", "the look-up, once a packet; and wherever a key is put into the flow table or taken out",
        {"remote": "int64, IPv4 address of the other end", "local": "int64, IPv4 address of ours", "remote_port": "int64",
         "local_port": "int64"},
        "Returns the hash, 0 .. 2**32 - 1, always the same for a key: its upper bits choose the bucket, its lowest 16 are the tag.",
        (Choice("crc32c", "pipeline.kernels.flow_hash:hash_key", "CRC32C of both addresses and ports, an instruction each."),
         Choice("multiply", "pipeline.kernels.hash_multiply:multiply",
                "Multiplications and shifts (as in MurmurHash3's finalizer): for processors without a CRC instruction."))),
    "lookup": Slot(
        "Finds the connection of every packet of a burst.", "`stages` in pipeline/loop.py, behind parse, once a burst",
        {**_BATCH, "buckets": "the flow table: what `allocate_buckets` has made",
         "hot": "connection.HOT[n]: remote_address, local_address, remote_port, local_port [side] are the key of a flow"},
        "Fills batch.flow (connection * 2 + side, or NO_FLOW) and batch.hash (hash_key of the row's source, destination and ports) of "
        "rows 0 .. count - 1; only rows of KIND_TCP that are PENDING have a flow. Returns nothing.",
        (Choice("bucketed", "pipeline.kernels.lookup:bucketed",
                "Buckets of one cache line with 16-bit tags, looked up in prefetched passes."),
         Choice("linear", "pipeline.kernels.linear_probing:linear",
                "A table of its own: tag beside entry, linear probing, deletion by moving back."),
         Choice("c", "pipeline.kernels.twins:lookup", "The same as bucketed in C, a yardstick.")),
        ("allocate_buckets", "find", "insert", "remove"), ("ask_for_key",)),
    "select": Slot(
        "Chooses the target of a connection.", "`choose` in pipeline/loop.py, once a connection or as often as it asks for more",
        {"payload": "uint8[n], the bytes held so far; may be changed in place", "service": "int64, number of the service",
         "selection": "services.Selection: services, rules, patterns; memory[service] are 8 int64 that are the kernel's; "
                      "scratch and rewrite[0] hold other bytes to be sent; assembled is room for the kernel's own use"},
        "Returns the number of a target among the service's own, from 0 on; NO_MATCH; NEED_MORE, to be asked again with more bytes; "
        "or ANSWER_CLIENT, with selection.reply[0] bytes to be taken away and the octet reply[1] for the client, to be asked again then.",
        (Choice("round_robin", "pipeline.kernels.select_balancing:round_robin", "Each target in turn."),
         Choice("http_path", "pipeline.kernels.select_content:http_path", "Longest rule that begins the HTTP/1 path, or is it."),
         Choice("http_host", "pipeline.kernels.select_content:http_host", "Rule for the HTTP/1 Host, also *.example.org."),
         Choice("number_modulo", "pipeline.kernels.select_content:number_modulo",
                "ProxyEngine's test rule: the number that starts the payload, modulo the number of targets."),
         Choice("at_random", "pipeline.kernels.select_balancing:at_random",
                "Any target, by numbers that look random and are the same in every run."),
         Choice("tls_sni", "pipeline.kernels.select_tls:tls_sni", "Rule for the server's name in a TLS ClientHello."),
         Choice("tls_alpn", "pipeline.kernels.select_tls:tls_alpn", "First rule for a protocol that a TLS ClientHello offers."),
         Choice("http2_path", "pipeline.kernels.select_http2:http2_path", "Longest rule that begins the path of the first HTTP/2 request."),
         Choice("http2_authority", "pipeline.kernels.select_http2:http2_authority", "Rule for the authority of the first HTTP/2 request."),
         Choice("ldap_dn", "pipeline.kernels.select_ldap:ldap_dn", "Longest rule that ends the DN of the first LDAP request: of a bind, the name."),
         Choice("postgresql_database", "pipeline.kernels.select_postgresql:postgresql_database", "Rule for the database in a StartupMessage."),
         Choice("postgresql_user", "pipeline.kernels.select_postgresql:postgresql_user", "Rule for the user in a StartupMessage."),
         Choice("redis_user", "pipeline.kernels.select_redis:redis_user", "Rule for the user of AUTH or HELLO, the first command; else default."),
         Choice("mqtt_client_id", "pipeline.kernels.select_mqtt:mqtt_client_id", "Rule for the client identifier of MQTT 3.1, 3.1.1 and 5."),
         Choice("octets", "pipeline.kernels.select_octets:octets", "First rule whose bytes are at their place, under its mask."),
         Choice("weighted_round_robin", "pipeline.kernels.select_weighted:weighted_round_robin",
                "Each target as often as its weight says, as evenly in between as can be."),
         Choice("least_connections", "pipeline.kernels.select_least_connections:least_connections",
                "The target with the fewest open connections for its weight."),
         Choice("source_hash", "pipeline.kernels.select_source_hash:source_hash", "By the client's address, weighted."),
         Choice("maglev", "pipeline.kernels.select_maglev:maglev", "Consistent hashing of the client's address and port, weighted."),
         Choice("two_choices", "pipeline.kernels.select_two_choices:two_choices", "The less loaded of two drawn at random."))),
    "payload": Slot(
        "Sees, and may change, every byte of one direction.",
        "`show_payload` and `show_held` in pipeline/loop.py, for each piece of a stream, in order and once",
        {"payload": "uint8[length + tailroom], the next bytes of the stream and room behind them", "length": "int64",
         "position": "int64, number of the first byte in the stream", "tailroom": "int64",
         "user": "int64[8], the kernel's own for this connection, 0 at first",
         "given": "payload_rules.Given: its rule of the configuration, rows[number], octets, hits[number], pushed, now; a kernel "
                  "may do without this parameter"},
        "Returns how many bytes of `payload` are sent instead, 0 .. length + tailroom; END_CONNECTION (-2): both sides get a RST; or "
        "SHOW_AGAIN (-3): the segment is dropped, for its sender to repeat it.",
        (Choice("unchanged", "pipeline.kernels.payload_text:unchanged", "Shows every byte to a kernel that changes none."),
         Choice("mask_digits", "pipeline.kernels.payload_text:mask_digits", "Every decimal digit becomes a star."),
         Choice("replace", "pipeline.kernels.payload_replace:replace", "Rule: each `search` becomes `replace`."),
         Choice("refuse_pattern", "pipeline.kernels.payload_pattern:refuse_pattern", "Rule: `search` ends the connection."),
         Choice("count_pattern", "pipeline.kernels.payload_pattern:count_pattern", "Rule: `search` is counted."),
         Choice("insert_header", "pipeline.kernels.payload_insert_header:insert_header",
                "Rule: the first HTTP/1 request gets the line `header`."),
         Choice("rate_limit", "pipeline.kernels.payload_rate_limit:rate_limit",
                "Rule: what is faster than `rate` octets a second, beyond `burst`, is dropped, to come again."),
         Choice("ldap_guard", "pipeline.kernels.payload_ldap_guard:ldap_guard",
                "Rule: anonymous LDAP clients are refused, bases that end with `search` end with `replace`.")),
        spared=1),
    "express": Slot(
        "Sends the usual segments of established connections on at once.",
        "`stages` in pipeline/loop.py, behind lookup, once a burst",
        {name: meaning for name, meaning in _PACKETS.items() if name != "base"} | {
            **_CONNECTIONS, **_NETWORK, "outbox": "outbox.Outbox: what is to be sent, by port (`post`)", **_NOW},
        "Sends what it can on (verdict SENT) and returns how many rows are left to the other stages.",
        (Choice("usual", "pipeline.kernels.express:usual", "Usual segments of established connections, all in one pass."),
         Choice("c", "pipeline.kernels.twins:express", "The same in C, a yardstick."),
         Choice("none", "pipeline.kernels.express:none", "Every packet goes through all stages: so where these are the user's."))),
    "transition": Slot(
        "What the packets do to their connections: handshakes, splice, closes.", "`stages` in pipeline/loop.py, once a burst",
        {**_PACKETS, **_CONNECTIONS, **_SERVICES, **_NETWORK, **_RECORDS, **_NOW},
        "Gives every PENDING TCP row its verdict, in order of arrival. Returns nothing.",
        (Choice("splice", "pipeline.kernels.transition:transition", "Handshakes, splice and closes, in order."),)),
    "rewrite": Slot(
        "Translates the headers of what passes.", "`stages` in pipeline/loop.py, once a burst",
        {**_PACKETS, **_CONNECTIONS, **_NETWORK, **_NOW},
        "Makes each row with verdict FORWARD the packet of the other side and sets batch.out_port. Returns nothing.",
        (Choice("incremental", "pipeline.kernels.rewrite:rewrite", "Header translation, checksums by RFC 1624."),
         Choice("c", "pipeline.kernels.twins:rewrite", "The same in C, a yardstick; rare cases by the kernel above."))),
    "timers": Slot(
        "Hands out the connections whose time has come.",
        "`timers` in pipeline/loop.py, once a pass; timers are set in kernels/expire.py and stopped in kernels/release.py",
        {"wheel": "what `allocate_wheel(timers, records)` has made; wheel.now is int64[2]: the tick reached, and 1 where it has "
                  "timers left",
         "tick": "int64, the tick to come to", "expired": "int64[n], gets the numbers of timers"},
        "Moves on to `tick`, writes the timers that are due to `expired`, none before its tick, and returns how many. Where `expired` "
        "is full it stands still (wheel.now[1] = 1), to go on at the next call.",
        (Choice("hierarchical", "pipeline.kernels.wheel:advance", "Four levels of 256 slots, timers in chunks of a cache line."),
         Choice("single", "pipeline.kernels.single_wheel:advance",
                "One level of 4096 slots: a timer that is a round or more away is passed over until its round comes.")),
        ("allocate_wheel", "schedule", "cancel"), ("ask_for_timer", "ask_for_place", "ask_for_last", "comes_earlier")),
    "schedule": Slot(
        "In which order a worker turns to its inputs.", "`run` in pipeline/loop.py, once a pass",
        {"inputs": "schedule.Inputs: port, ring, length of the last burst, passes since its turn, and order, all int64[n]"},
        "Writes the numbers of the inputs that have their turn in this pass to inputs.order, and returns how many.",
        (Choice("round_robin", "pipeline.kernels.schedule:round_robin", "A burst of every queue in every pass."),
         Choice("longest_first", "pipeline.kernels.schedule:longest_first",
                "Hand-over first, then the queues whose last burst was the longest; none is left out for more than 8 passes."))),
    "record": Slot(
        "Finishes the session record of a connection that has ended.", "`release` in kernels/release.py, once a connection",
        {**_RECORDS, "counters": "counters.Counters", "hot": "the connection's HOT record", "cold": "its COLD record",
         "connection": "int64, its number", "causes": "int64, release cause of the client's side, of the target's << 8 "
                                                      "(records.CAUSES)", **_NOW},
        "Puts a RECORD into records.ring and moves records.head on, or keeps none. Returns nothing.",
        (Choice("all", "pipeline.kernels.records:finish", "A record of every connection."),
         Choice("failures", "pipeline.kernels.record_failures:failures",
                "Only of connections that did not end by an orderly close of both sides."))),
    "observe": Slot(
        "Looks at every burst and changes nothing but its own numbers.", "`stages` in pipeline/loop.py, behind lookup, once a burst",
        {**_PACKETS, **_CONNECTIONS,
         "observed": "int64[64], the worker's, 0 at first: shown as `observed` by run --json and stats --json", **_NOW},
        "Changes `observed` alone. Returns nothing.",
        (Choice("none", "pipeline.kernels.observe:none", "Nothing is looked at: it is not even compiled in."),
         Choice("sizes", "pipeline.kernels.observe:sizes",
                "How many TCP packets had how much payload: observed[0] none, observed[n] 2**(n - 1) .. 2**n - 1 octets."))),
}
"""Every slot of the loop, in the order of a packet's way."""

OF_SERVICES = ("select", "payload")
"""Slots that each service fills for itself; all others are filled by [kernels]."""


def names(slot):
    """Returns the short names of our kernels for a slot (tuple of str)."""
    return tuple(choice.name for choice in SLOTS[slot].choices)


def fits(slot, count):
    """Says whether a kernel with so many parameters has the signature of a slot."""
    most = len(SLOTS[slot].parameters)
    return most - SLOTS[slot].spared <= count <= most


def signature(slot, name=None):
    """Returns the signature of a slot as text, such as "lookup(batch, count, buckets, hot)"."""
    return f"{name or slot}({', '.join(SLOTS[slot].parameters)})"


def defined(place):
    """Returns (file, line) of one of our kernels at "module:function"."""
    module, _, function = place.rpartition(":")
    path = (pathlib.Path(__file__).parent.parent / (module.replace(".", "/") + ".py")).resolve()
    lines = {node.name: node.lineno for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    return str(path), lines[function]


def described():
    """Returns all there is to know of the slots as plain data (dict): what `kernels --json` prints."""
    found = {}
    for name, slot in SLOTS.items():
        kernels = []
        for number, choice in enumerate(slot.choices):
            file, line = defined(choice.place)
            kernels.append({"name": choice.name, "function": choice.place, "about": choice.about, "file": file, "line": line,
                            "default": number == 0 and name not in OF_SERVICES})
        found[name] = {"about": slot.about, "called": slot.called, "signature": signature(name),
                       "parameters": dict(slot.parameters), "answer": slot.answer, "beside": list(slot.beside),
                       "also": list(slot.also), "kernels": kernels}
    return found


def text_of(found):
    """Returns what `described` has found as text."""
    lines = []
    for slot in found.values():
        lines += [f"{slot['signature']}", f"  {slot['about']} Called in {slot['called']}.", f"  {slot['answer']}"]
        lines += [f"    {parameter:<12} {meaning}" for parameter, meaning in slot["parameters"].items()]
        if slot["beside"]:
            lines.append(f"  Its module may bring {', '.join(slot['beside'])}, all of them; and {', '.join(slot['also'])}.")
        for kernel in slot["kernels"]:
            lines += [f"  {kernel['name'] + (' *' if kernel['default'] else ''):<16} {kernel['about']}",
                      f"  {'':<16} {kernel['function']}", f"  {'':<16} {kernel['file']}:{kernel['line']}"]
        lines.append("")
    return "\n".join(lines) + "* is the default, and what `kernels check` compares with"
