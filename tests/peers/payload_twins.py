"""What the kernels of `payload_kernels` make of a whole stream, in plain Python."""
TWINS = {
    "swell": lambda data: data.replace(b"a", b"bcd"),
    "delete_digits": lambda data: data.translate(None, b"0123456789"),
    "number_up": lambda data: bytes(octet ^ place & 0x7F for place, octet in enumerate(data)),
    "announce": lambda data: b"HIJKLM" + data if data else b"",
    "swallow": lambda data: b"",
    "overreach": lambda data: data,
    None: lambda data: data,
}
TWINS["number_down"] = TWINS["number_up"]
TWINS["everything"] = lambda data: TWINS["swell"](TWINS["delete_digits"](data).replace(b"x", b"y"))
