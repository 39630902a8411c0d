"""LDAP messages in BER (RFC 4511), and what `ldap_guard` has to make of a stream of them, plainly."""


def element(tag, content, long=0):
    """Returns an element; `long`: how many octets its length has at least beyond the first."""
    length = len(content)
    octets = max((length.bit_length() + 7) // 8, 1, long)
    head = bytes([length]) if length < 128 and not long else bytes([0x80 | octets]) + length.to_bytes(octets, "big")
    return bytes([tag]) + head + content


def message(number, operation, controls=b"", long=0):
    """Returns an LDAPMessage."""
    return element(0x30, element(2, number.to_bytes(2, "big").lstrip(b"\0") or b"\0") + operation + controls, long)


def bind(name, password, long=0):
    """Returns a simple bind (bytes each)."""
    return element(0x60, element(2, b"\3") + element(4, name, long) + element(0x80, password), long)


def sasl(mechanism):
    """Returns a bind by SASL."""
    return element(0x60, element(2, b"\3") + element(4, b"") + element(0xA3, element(4, mechanism) + element(4, b"secret")))


def search(base, rest=b"\x0a\1\2", long=0):
    """Returns a search; `rest` stands for all behind its base."""
    return element(0x63, element(4, base, long) + rest, long)


def parts(octets):
    """Returns [(tag, content)] of elements one behind the other."""
    found = []
    while octets:
        length, at = octets[1], 2
        if length & 0x80:
            at += length & 0x7F
            length = int.from_bytes(octets[2:at], "big")
        found.append((octets[0], octets[at:at + length]))
        octets = octets[at + length:]
    return found


def rewritten(octets, suffix, replacement):
    """Returns [(number, tag of the operation, its elements, controls)] of a stream, the bases of searches rewritten."""
    made = []
    for _, content in parts(octets):
        number, (tag, operation), *controls = parts(content)
        elements = operation if tag not in (0x60, 0x63) else parts(operation)
        if tag == 0x63 and suffix:
            base = elements[0][1]
            if base == suffix or base.endswith(b"," + suffix):
                elements = [(4, base[:len(base) - len(suffix)] + replacement), *elements[1:]]
        made.append((number, tag, elements, controls))
    return made
