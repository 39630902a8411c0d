"""Filter expressions for recordings: the language of tcpdump, pcap-filter(7), compiled into the loop.

libpcap, which DPDK needs anyway, translates an expression to a program of the BSD packet filter (McCanne and Jacobson, 1993):
straight pieces of code and jumps forward. Each piece becomes an `if` of a kernel, in order; LLVM makes jumps of these again.
"""
import ctypes
import ctypes.util
import functools

from pipeline.errors import ConfigurationError

ETHERNET_LINK, SNAP = 1, 65535
UNKNOWN_NETMASK = 0xFFFFFFFF
EVERY = "from pipeline.kernels.recorder import every as is_recorded\n"
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
"""Classes of instructions: the lowest three bits of their code (bpf(4))."""
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
SIZES = {0x00: 4, 0x08: 2, 0x10: 1}
OPERATIONS = {0x00: "+", 0x10: "-", 0x20: "*", 0x30: "//", 0x40: "|", 0x50: "&", 0x60: "<<", 0x70: ">>", 0x90: "%", 0xA0: "^"}
COMPARISONS = {0x10: "a == {0}", 0x20: "a > {0}", 0x30: "a >= {0}", 0x40: "(a & {0}) != 0"}
NEGATE, ALWAYS = 0x80, 0x00
FROM_X = 0x08
WORD = "0xFFFFFFFF"
EXTENSIONS = 0xFFFFF000
"""Offsets from here on ask the Linux kernel for what is not in the packet."""


class _Instruction(ctypes.Structure):
    """struct bpf_insn."""

    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction))]


@functools.cache
def library():
    """Returns libpcap (ctypes.CDLL); raises ConfigurationError where it is not installed."""
    for name in (ctypes.util.find_library("pcap"), "libpcap.so.0.8", "libpcap.so.1", "libpcap.so"):
        try:
            found = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if found is not None:
            found.pcap_open_dead.restype = ctypes.c_void_p
            found.pcap_geterr.restype = ctypes.c_char_p
            found.pcap_geterr.argtypes = found.pcap_close.argtypes = [ctypes.c_void_p]
            found.pcap_compile.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32]
            return found
    raise ConfigurationError("--record-filter: libpcap, which translates expressions, is not installed; apt-get install libpcap0.8")


def program(text):
    """Returns the instructions (list of (code, jt, jf, k)) of an expression; raises ConfigurationError where it is none."""
    pcap, made = library(), _Program()
    handle = pcap.pcap_open_dead(ETHERNET_LINK, SNAP)
    try:
        if pcap.pcap_compile(handle, ctypes.byref(made), text.encode(), 1, UNKNOWN_NETMASK) != 0:
            words = pcap.pcap_geterr(handle).decode(errors="replace")
            raise ConfigurationError(f'--record-filter "{text}": {words}; the language is that of tcpdump, see pcap-filter(7)')
        found = [(each.code, each.jt, each.jf, each.k) for each in made.instructions[:made.length]]
        pcap.pcap_freecode(ctypes.byref(made))
        return found
    finally:
        pcap.pcap_close(handle)


def _loaded(into, at, size):
    """Returns the lines that load `size` octets from an offset (source), or end the kernel where the packet is too short."""
    octets = " | ".join(f"int64(octets[start + at + {place}]) << {8 * (size - 1 - place)}" for place in range(size))
    return [f"at = {at}", f"if at + {size} > length:", "    return False", f"{into} = {octets}"]


def _load(code, k, text):
    mode, into = code & 0xE0, "x" if code & 7 == LDX else "a"
    if mode == IMM:
        return [f"{into} = {k}"]
    if mode == MEM:
        return [f"{into} = m{k}"]
    if mode == LEN:
        return [f"{into} = length"]
    if mode == MSH:
        return [*_loaded("x", str(k), 1), "x = (x & 15) << 2"]
    if mode == ABS and k >= EXTENSIONS:
        raise ConfigurationError(f'--record-filter "{text}": asks for what is not in the packet (the interface or the direction)')
    return _loaded(into, str(k) if mode == ABS else f"(x + {k}) & {WORD}", SIZES[code & 0x18])


def _reckon(code, k):
    operand, operation = "x" if code & FROM_X else str(k), code & 0xF0
    if operation == NEGATE:
        return [f"a = -a & {WORD}"]
    sign = OPERATIONS[operation]
    if sign in ("//", "%"):
        return [f"if {operand} == 0:", "    return False", f"a = a {sign} {operand}"]
    if sign in ("<<", ">>"):
        return [f"a = (a {sign} {operand}) & {WORD} if {operand} < 32 else 0"]
    return [f"a = (a {sign} {operand}) & {WORD}"]


def _lines(place, instruction, text):
    """Returns the source lines of one instruction; a jump sets `piece`, the place of the instruction that is next."""
    code, jt, jf, k = instruction
    kind = code & 7
    if kind in (LD, LDX):
        return _load(code, k, text)
    if kind in (ST, STX):
        return [f"m{k} = {'a' if kind == ST else 'x'}"]
    if kind == ALU:
        return _reckon(code, k)
    if kind == RET:
        return [f"return {'a != 0' if code & 0x18 == 0x10 else k != 0}"]
    if kind == MISC:
        return ["a = x" if code & 0x80 else "x = a"]
    if code & 0xF0 == ALWAYS:
        return [f"piece = {place + 1 + k}"]
    asked = COMPARISONS[code & 0xF0].format("x" if code & FROM_X else k)
    return [f"piece = {place + 1 + jt} if {asked} else {place + 1 + jf}"]


def _jumps_to(place, instruction):
    code, jt, jf, k = instruction
    if code & 7 != JMP:
        return set()
    return {place + 1 + k} if code & 0xF0 == ALWAYS else {place + 1 + jt, place + 1 + jf}


def kernel_source(text):
    """Returns the source of `is_recorded(octets, start, length)`, which says whether an expression matches the frame of
    `length` octets at octets[start:]. The expression is checked."""
    instructions = program(text)
    starts = {0}.union(*(_jumps_to(place, each) for place, each in enumerate(instructions)))
    memory = sorted({each[3] for each in instructions
                     if each[0] & 7 in (ST, STX) or (each[0] & 7 in (LD, LDX) and each[0] & 0xE0 == MEM)})
    lines = ["@kernel", "def is_recorded(octets, start, length):", f"    # {text!r}",
             "    piece, a, x, at = 0, 0, 0, 0", *(f"    m{number} = 0" for number in memory)]
    for place, each in enumerate(instructions):
        if place in starts:
            # What runs on into the next piece without a jump: `piece` says so as well.
            if place and instructions[place - 1][0] & 7 not in (JMP, RET):
                lines.append(f"        piece = {place}")
            lines.append(f"    if piece == {place}:")
        lines += [f"        {line}" for line in _lines(place, each, text)]
    return "\n".join([*lines, "    return False"]) + "\n"


def source(text):
    """Returns the source that binds `is_recorded` to the kernel of an expression; without one it wants every packet."""
    return "\n\n" + kernel_source(text) if text else EVERY


def predicate(text):
    """Returns the function (frame: uint8[n]) that says whether an expression matches, as plain Python: to look at a few frames."""
    scope = {"kernel": lambda function: function, "int64": int}
    exec(kernel_source(text), scope)  # noqa: S102 - our own source
    return lambda octets: bool(scope["is_recorded"](octets, 0, len(octets)))
