"""What the C twins see of the kernels' records, columns and numbers: one C declaration for each, made from the Python ones.

This file imports numpy alone and reads the sources of the others: the build of the twins loads it where Numba is not
installed. A layout that changes changes the digest, by which `twins` knows that the built ones are of another layout.
"""
import ast
import functools
import hashlib
import pathlib

import numpy as np

RECORDS = {"connection": ("HOT",), "flow_table": ("BUCKET",), "neighbours": ("NEIGHBOUR",),
           "headers": ("MBUF", "ETHERNET", "VLAN", "IPV4", "TCP")}
"""Module to the names of its dtypes; in C they are structures with these names in lower case, in the machine's order."""
NUMBERS = {
    "batch": ("NO_FLOW", "KIND_NONE", "KIND_TCP", "KIND_ARP", "KIND_ICMP", "PENDING", "FORWARD", "DROP", "REPORT", "SENT"),
    "connection": ("CLIENT", "TARGET", "ESTABLISHED", "HOLDS", "OWNS", "STAMPED", "SCALED", "SPECIAL", "BOUND"),
    "flow_table": ("SLOTS", "LONGEST", "STEPS", "CLASSES"),
    "flow_hash": ("SEED",),
    "neighbours": ("REACHABLE",),
    "headers": ("ARP_LENGTH", "ETHERNET_LENGTH", "ETHERTYPE_ARP", "ETHERTYPE_IPV4", "ETHERTYPE_QINQ", "ETHERTYPE_VLAN", "HEADROOM",
                "ICMP_LENGTH", "IPV4_LENGTH", "PROTOCOL_ICMP", "PROTOCOL_TCP", "FIN", "SYN", "RST", "ACK", "TCP_LENGTH",
                "TCP_OPTION_END", "TCP_OPTION_NOP", "TCP_OPTION_MSS", "TCP_OPTION_SACK", "TCP_OPTION_SACK_PERMITTED",
                "TCP_OPTION_TIMESTAMPS", "TCP_OPTION_WINDOW_SCALE", "VLAN_LENGTH"),
    "tcp_options": ("ALIGNED_TIMESTAMPS", "TIMESTAMPS_LENGTH", "HIGHEST_SCALE"),
    "parse": ("AHEAD", "MOST_SEGMENTS"),
    "shaping": ("WINDOW",),
    "express": ("BITS",),
    "counters": ("DROP_MBUF_CHAIN", "DROP_RUNT_FRAME", "DROP_OTHER_MAC", "DROP_OTHER_ETHERTYPE", "DROP_OTHER_VLAN",
                 "DROP_IPV4_HEADER", "DROP_IPV4_LENGTH", "DROP_IPV4_CHECKSUM", "DROP_FRAGMENT", "DROP_OTHER_PROTOCOL",
                 "DROP_TCP_HEADER", "DROP_ARP_INVALID", "DROP_ICMP_INVALID", "DROP_UNRESOLVED_NEIGHBOUR", "DROP_TTL_EXCEEDED",
                 "DROP_LARGER_THAN_MTU", "DROP_TRANSMIT_FULL", "NOTICE_IPV4_OPTIONS", "NOTICE_SEVERAL_SEGMENTS",
                 "NOTICE_VLAN_PRIORITY", "RECEIVED_PAYLOAD", "SENT_PAYLOAD"),
}
"""Module to its numbers that C knows by the same names."""
POINTERS = (("hot", "struct hot"), ("buckets", "struct bucket"), ("octets", "uint8_t"), ("drops", "int64_t"),
            ("notices", "int64_t"), ("neighbours", "struct neighbour"), ("mtu", "int64_t"), ("mac_high", "int64_t"),
            ("mac_low", "int64_t"), ("outbox_mbuf", "int64_t"), ("outbox_filled", "int64_t"), ("outbox_released", "int64_t"),
            ("outbox_to_release", "int64_t"), ("events", "int64_t"))
"""Pointers of the context behind the columns of the batch."""
SCALARS = ("bucket_count", "octet_count", "base", "own_port", "outbox_room", "event_count", "tick")
"""Numbers of the context behind its pointers."""
SOURCES = sorted({*RECORDS, *NUMBERS})
LEFT = 99
"""Verdict of a row that a twin leaves to the kernel: rare cases are written once."""
IN_C = {"u1": "uint8_t", "u2": "uint16_t", "u4": "uint32_t", "u8": "uint64_t", "i8": "int64_t"}


@functools.cache
def names_of(module):
    """Returns what a kernel module assigns at its top level (dict), as far as numpy alone can tell, and fields of classes."""
    tree = ast.parse((pathlib.Path(__file__).parent / f"{module}.py").read_text())
    found = {"np": np}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = tuple(line.target.id for line in node.body if isinstance(line, ast.AnnAssign))
        elif isinstance(node, ast.Assign):
            try:
                exec(compile(ast.Module([node], []), module, "exec"), found)  # noqa: S102 - our own source
            except NameError:  # it needs what is imported: nothing of that is asked for
                continue
    return found


def structure(name, record):
    """Returns the C structure of a dtype, with its size and the places of all fields asserted."""
    lines, end = [], 0
    fields = sorted(((field, *record.fields[field][:2]) for field in record.names), key=lambda field: field[2])
    for field, kind, offset in fields:
        if offset > end:
            lines.append(f"uint8_t gap_{end}[{offset - end}];")
        count = f"[{kind.shape[0]}]" if kind.shape else ""
        lines.append(f"{IN_C[kind.base.newbyteorder('=').str[1:]]} {field}{count};")
        end = offset + kind.itemsize
    if record.itemsize > end:
        lines.append(f"uint8_t gap_{end}[{record.itemsize - end}];")
    facts = [f"sizeof(struct {name}) == {record.itemsize}",
             *(f"offsetof(struct {name}, {field}) == {offset}" for field, _, offset in fields)]
    body = "\n    ".join(lines)
    return f"struct __attribute__((packed)) {name} {{\n    {body}\n}};\n" + "".join(
        f'_Static_assert({fact}, "{fact}");\n' for fact in facts)


def context_fields():
    """Returns the names of the context's 64-bit words, in order."""
    return (*names_of("batch")["Batch"], *(name for name, _ in POINTERS), *SCALARS)


def declarations():
    """Returns the C declarations (str) of all that the twins see."""
    parts = [f"#define {name} {names_of(module)[name]}\n" for module, names in NUMBERS.items() for name in names]
    parts.append(f"#define LEFT {LEFT}\n")
    parts += [structure(name.lower(), names_of(module)[name]) for module, names in RECORDS.items() for name in names]
    lines = [f"int64_t *{column};" for column in names_of("batch")["Batch"]]
    lines += [f"{kind} *{name};" for name, kind in POINTERS] + [f"int64_t {name};" for name in SCALARS]
    parts.append("struct context {\n    " + "\n    ".join(lines) + "\n};\n")
    parts += [f'_Static_assert(offsetof(struct context, {name}) == {8 * place}, "{name}");\n'
              for place, name in enumerate(context_fields())]
    return "".join(parts)


def digest():
    """Returns a digest (str) of the declarations: the built twins and the kernels have to have the same."""
    return hashlib.sha256(declarations().encode()).hexdigest()[:16]
