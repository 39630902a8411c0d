"""The kinds of value a configuration holds: how each is read from TOML and what is said when it is wrong.

A validator raises ValueError with the rest of a sentence that begins with the key and the value, such as
`must be ...`. `right` in the metadata of a kind says what is expected where nothing at all was given.
"""
import ast
import difflib
import ipaddress
import pathlib
import re
from typing import Annotated, NamedTuple

from pydantic import Field, PlainSerializer, PlainValidator

from pipeline.slots import names

SELECTS = names("select")
"""Short names of our own select kernels."""
PAYLOADS = names("payload")
"""Short names of our own payload kernels."""
REFUSE = "refuse"
"""The `default` of a service that answers a payload without a match by a RST."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,10}")
_QUAD = r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_RING = re.compile(r"ring:[a-z][a-z0-9_]{0,7}")
_PCI = re.compile(r"([0-9A-Fa-f]{4}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7](,.+)?")
_VIRTUAL_DEVICE = re.compile(r"[a-z][a-z0-9_]*(,[A-Za-z0-9_-]+=[^,]*)*")
_EXCEPTION_DEVICE = re.compile(r"(net_tap\d+|net_virtio_user\d+(?=.*,path=[^,]+))(,[A-Za-z0-9_-]+=[^,]*)*")
_EXCEPTION_INTERFACE = re.compile(r",iface=[^\s/:,]{1,15}(,|$)")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_LONGEST_MATCH = 255

_RSS_KEY_IS = 'a key of 40 to 52 octets in lower-case hexadecimal digits, such as "6d5a56da..."'
_NAME_IS = "a name of 1 to 32 letters, digits, dots, dashes and underscores"
_HOST_NAME_IS = "a name of 1 to 11 small letters, digits and dashes (it becomes part of an interface's name)"
_ADDRESS_IS = 'an IPv4 address of a host, such as "10.1.0.1"'
_ADDRESS_RANGE_IS = 'an IPv4 address or a range of them, such as "10.1.0.2" or "10.1.0.10-10.1.0.19"'
_INTERFACE_ADDRESS_IS = 'an IPv4 address with the prefix length of its network, such as "10.1.0.1/24"'
_NETWORK_IS = 'an IPv4 network, such as "10.2.0.0/16" or "0.0.0.0/0"'
_SOURCES_IS = _NETWORK_IS + ', or "file:NAME" with one such network a line'
_ENDPOINT_IS = '"address:port", such as "10.1.0.1:80"'
_LISTEN_IS = '"address:port", such as "10.1.0.1:80", with a range of ports as "10.1.0.1:8000-8999", or a prefix as "10.1.8.0/24:80"'
_MAC_IS = 'a unicast MAC address, such as "02:00:00:00:00:01"'
_CONFIGURATION_FILE_IS = 'the name of a configuration that exists, such as "generator_proxy.toml"'
_LINUX_INTERFACE_IS = "the name of a network interface, 1 to 15 characters"
_DEVICE_IS = ('DPDK devargs such as "net_af_packet0,iface=eth1", a PCI address such as "0000:01:00.0", '
              '"pcap:FILE" or "ring:NAME"')
_EXCEPTION_DEVICE_IS = ('"net_tap7,iface=kx0" or "net_virtio_user0,path=/dev/vhost-net,iface=kx0", with any number and the name '
                        "that the kernel's interface is to have, of 1 to 15 characters")
_KERNEL_IS = 'the name of one of our kernels, "package.module:function" or "file.py:function"'
_SELECT_IS = ("one of " + ", ".join(f'"{name}"' for name in SELECTS)
              + ', or a kernel of your own as "package.module:function" or "file.py:function"')
_PAYLOAD_IS = ("one of " + ", ".join(f'"{name}"' for name in PAYLOADS)
               + ', or a kernel of your own as "package.module:function" or "file.py:function"')
_SOURCE_PORTS_IS = "[lowest, highest], two port numbers from 1 to 65535"
_MASK_IS = 'the bits that count, in hexadecimal such as "0xff0f"'
_SOCKET_IS = "an absolute path of at most 107 bytes"


class Endpoint(NamedTuple):
    """A TCP endpoint: `address` (IPv4Address) and `port` (int)."""

    address: ipaddress.IPv4Address
    port: int

    def __str__(self):
        return f"{self.address}:{self.port}"


class Listen(NamedTuple):
    """Where a service listens: all addresses of a prefix, on the ports from `port` to `last_port`.

    `address` (IPv4Address) is the first one of a prefix of `length` bits, which are 32 for a single address.
    """

    address: ipaddress.IPv4Address
    port: int
    last_port: int
    length: int

    def __str__(self):
        prefix = "" if self.length == 32 else f"/{self.length}"
        return f"{self.address}{prefix}:{self.port}" + ("" if self.port == self.last_port else f"-{self.last_port}")

    @property
    def network(self):
        """The addresses (IPv4Network)."""
        return ipaddress.IPv4Network((self.address, self.length))

    @property
    def ports(self):
        """The ports (range)."""
        return range(self.port, self.last_port + 1)


class PortRange(NamedTuple):
    """The port numbers `low` to `high`, both included."""

    low: int
    high: int


class AddressRange(NamedTuple):
    """The IPv4 addresses (ints) `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self):
        return "-".join(str(ipaddress.IPv4Address(number)) for number in dict.fromkeys(self))


def suggestion(word, known):
    """Returns `; did you mean "x"?` for the nearest of `known` (strs), else a list of what is known."""
    if not known:
        return ""
    near = difflib.get_close_matches(str(word), known, 1, 0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    return "; known here: " + ", ".join(sorted(known))


def unusable_as_host(address):
    """Returns why `address` (IPv4Address) can never be a host's, as the rest of a sentence, or None."""
    kinds = [("the unspecified address", address.is_unspecified), ("a multicast address", address.is_multicast),
             ("a loopback address", address.is_loopback), ("the limited broadcast address", int(address) == 2**32 - 1),
             ("a reserved address", address.is_reserved or int(address) < 1 << 24)]
    for kind, applies in kinds:
        if applies:
            return f"is {kind}; it must be {_ADDRESS_IS}"
    return None


def place_in_network(address, network):
    """Returns `network address` or `broadcast address` where `address` is one of `network`'s, else None.

    Networks of 31 and 32 bits have neither (RFC 3021).
    """
    if network.prefixlen >= 31:
        return None
    places = {network.network_address: "network address", network.broadcast_address: "broadcast address"}
    return places.get(address)


def _require(condition, right):
    if not condition:
        raise ValueError(f"must be {right}")


def _text(value, pattern, right):
    _require(isinstance(value, str) and re.fullmatch(pattern, value), right)
    return value


def _address(value):
    _require(isinstance(value, str), _ADDRESS_IS)
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError as error:
        raise ValueError(f"must be {_ADDRESS_IS}") from error
    reason = unusable_as_host(address)
    if reason:
        raise ValueError(reason)
    return address


def _address_range(value):
    _require(isinstance(value, str), _ADDRESS_RANGE_IS)
    first, _, last = value.partition("-")
    ends = int(_address(first)), int(_address(last or first))
    _require(ends[0] <= ends[1], _ADDRESS_RANGE_IS)
    return AddressRange(*ends)


def _interface_address(value):
    _text(value, _QUAD + r"/\d{1,2}", _INTERFACE_ADDRESS_IS)
    try:
        interface = ipaddress.IPv4Interface(value)
    except ValueError as error:
        raise ValueError(f"must be {_INTERFACE_ADDRESS_IS}") from error
    reason = unusable_as_host(interface.ip)
    if reason:
        raise ValueError(reason)
    place = place_in_network(interface.ip, interface.network)
    if place:
        raise ValueError(f"is the {place} of {interface.network}; it must be the address of a host in it")
    _require(interface.network.prefixlen > 0, _INTERFACE_ADDRESS_IS)
    return interface


def _network(value):
    _text(value, _QUAD + r"/\d{1,2}", _NETWORK_IS)
    try:
        interface = ipaddress.IPv4Interface(value)
    except ValueError as error:
        raise ValueError(f"must be {_NETWORK_IS}") from error
    if interface.ip != interface.network.network_address:
        raise ValueError(f'has bits set behind its prefix; the network is "{interface.network}"')
    return interface.network


def _sources(value, info):
    """Returns the networks (tuple of IPv4Network) that an entry of an allow or deny list means."""
    _require(isinstance(value, str), _SOURCES_IS)
    if not value.startswith("file:"):
        return (_network(value),)
    path, networks = _beside(value.removeprefix("file:"), info), []
    if not path.is_file():
        raise ValueError(f"names no file ({path}); it must be {_SOURCES_IS}")
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        try:
            networks += [_network(text)] if text else []
        except ValueError as error:
            raise ValueError(f'names a file whose line {number}, "{text}", {error}') from error
    return tuple(networks)


def _endpoint(value):
    _text(value, _QUAD + r":\d{1,5}", _ENDPOINT_IS)
    address, _, port = value.partition(":")
    if not 1 <= int(port) <= 65535:
        raise ValueError("has a port number that is not from 1 to 65535")
    return Endpoint(_address(address), int(port))


def _listen(value):
    _text(value, _QUAD + r"(/\d{1,2})?:\d{1,5}(-\d{1,5})?", _LISTEN_IS)
    place, _, ports = value.partition(":")
    low, _, high = ports.partition("-")
    if not (1 <= int(low) <= 65535 and 1 <= int(high or low) <= 65535):
        raise ValueError("has a port number that is not from 1 to 65535")
    if int(high or low) < int(low):
        raise ValueError(f"has a range of ports that runs backwards; it must be {_LISTEN_IS}")
    if "/" not in place:
        return Listen(_address(place), int(low), int(high or low), 32)
    network = _network(place)
    if reason := unusable_as_host(network.network_address) or unusable_as_host(network.broadcast_address):
        raise ValueError(f"has addresses that no host can have: one {reason}")
    return Listen(network.network_address, int(low), int(high or low), network.prefixlen)


def _mac(value):
    _text(value, _MAC, _MAC_IS)
    _require(not int(value[:2], 16) & 1 and value.strip("0:"), _MAC_IS)
    return value.lower()


def _device(value, info):
    _require(isinstance(value, str), _DEVICE_IS)
    if value.startswith("pcap:"):
        path = _beside(value.removeprefix("pcap:"), info)
        if not path.is_file():
            raise ValueError(f"names no file ({path}); it must be \"pcap:FILE\" with a recording that exists")
        return f"pcap:{path}"
    _require(any(re.fullmatch(kind, value) for kind in (_PCI, _RING, _VIRTUAL_DEVICE)), _DEVICE_IS)
    return value


def _exception_device(value):
    _text(value, _EXCEPTION_DEVICE, _EXCEPTION_DEVICE_IS)
    _require(_EXCEPTION_INTERFACE.search(value), _EXCEPTION_DEVICE_IS)
    return value


def _beside(name, info):
    """Returns `name` as a Path, taken from the folder of the configuration where it is relative."""
    folder = (info.context or {}).get("folder", ".")
    return (pathlib.Path(folder) / name).resolve()


def _configuration_file(value, info):
    _require(isinstance(value, str), _CONFIGURATION_FILE_IS)
    path = _beside(value, info)
    if not path.is_file():
        raise ValueError(f"names no file ({path}); it must be {_CONFIGURATION_FILE_IS}")
    return str(path)


def _kernel(value, info):
    _require(isinstance(value, str), _KERNEL_IS)
    place, colon, function = value.rpartition(":")
    if not colon:
        _require(value.isidentifier(), _KERNEL_IS)
        return value
    _require(function.isidentifier() and place, _KERNEL_IS)
    if place.endswith(".py"):
        return f"{_python_file(place, function, info)}:{function}"
    _require(all(part.isidentifier() for part in place.split(".")), _KERNEL_IS)
    return value


def _python_file(place, function, info):
    """Returns the absolute Path of the user's file `place`; refuses one that has no top-level `function`."""
    path = _beside(place, info)
    if not path.is_file():
        raise ValueError(f"names no file: {path} does not exist")
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"names a file that is not Python: {error}") from error
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    names += [target.id for node in tree.body if isinstance(node, ast.Assign)
              for target in node.targets if isinstance(target, ast.Name)]
    if function not in names:
        raise ValueError(f'names no function of {path}{suggestion(function, names)}')
    return path


def _select(value, info):
    return _one_of(value, info, SELECTS, _SELECT_IS)


def _payload(value, info):
    return None if value is None else _one_of(value, info, PAYLOADS, _PAYLOAD_IS)


def _one_of(value, info, names, right):
    """Returns the name or place of a kernel of a service's own."""
    _require(isinstance(value, str), right)
    if ":" not in value and value not in names:
        near = difflib.get_close_matches(value, names, 1, 0.6)
        raise ValueError(f'must be {right}' + (f'; did you mean "{near[0]}"?' if near else ""))
    return _kernel(value, info)


def _match(value):
    right = f"1 to {_LONGEST_MATCH} bytes of text without control characters"
    _text(value, r"[^\x00-\x1f\x7f]+", right)
    _require(len(value.encode(errors="replace")) <= _LONGEST_MATCH, right)
    return value


def _mask(value):
    return _text(value, r"0x([0-9A-Fa-f]{2})+", _MASK_IS)


_LONGEST_OCTETS = 255
OCTETS_IS = f"a text of 1 to {_LONGEST_OCTETS} bytes in UTF-8"
REPLACEMENT_IS = f"a text of at most {_LONGEST_OCTETS} bytes in UTF-8"
HEADER_IS = f'a line of at most {_LONGEST_OCTETS - 2} ASCII characters such as "X-Forwarded-Proto: http"'


def _octets(value):
    _require(isinstance(value, str) and 1 <= len(value.encode()) <= _LONGEST_OCTETS, OCTETS_IS)
    return value


def _replacement(value):
    _require(isinstance(value, str) and len(value.encode()) <= _LONGEST_OCTETS, REPLACEMENT_IS)
    return value


def _header(value):
    _text(value, r"[!#-'*+.0-9A-Z^_`a-z|~-]+: [ -~]+", HEADER_IS)
    _require(len(value) <= _LONGEST_OCTETS - 2, HEADER_IS)
    return value


def _target_id(value):
    _text(value, _NAME, _NAME_IS)
    if value == REFUSE:
        raise ValueError(f'is taken: "{REFUSE}" stands for no target; it must be another name')
    return value


def _source_ports(value):
    _require(isinstance(value, (list, tuple)) and len(value) == 2, _SOURCE_PORTS_IS)
    _require(all(type(port) is int and 1 <= port <= 65535 for port in value), _SOURCE_PORTS_IS)
    if value[0] > value[1]:
        raise ValueError(f"runs backwards; it must be {_SOURCE_PORTS_IS}")
    return PortRange(*value)


def _socket_path(value):
    _text(value, r"/[^\0]*[^\0/]", _SOCKET_IS)
    _require(len(value.encode()) <= 107, _SOCKET_IS)
    return value


def _rss_key(value):
    _text(value, r"(?:[0-9a-f]{2}){40,52}", _RSS_KEY_IS)
    return value


def _kind(python_type, convert, right):
    """Returns the annotation of a kind of value that `convert` reads and that `check --json` shows as text."""
    return Annotated[python_type, PlainValidator(convert), PlainSerializer(str, when_used="json"),
                     Field(description=right)]


Name = _kind(str, lambda value: _text(value, _NAME, _NAME_IS), _NAME_IS)
HostName = _kind(str, lambda value: _text(value, _HOST_NAME, _HOST_NAME_IS), _HOST_NAME_IS)
TargetId = _kind(str, _target_id, _NAME_IS)
Address = _kind(ipaddress.IPv4Address, _address, _ADDRESS_IS)
Addresses = _kind(AddressRange, _address_range, _ADDRESS_RANGE_IS)
InterfaceAddress = _kind(ipaddress.IPv4Interface, _interface_address, _INTERFACE_ADDRESS_IS)
Network = _kind(ipaddress.IPv4Network, _network, _NETWORK_IS)
Sources = _kind(tuple, _sources, _SOURCES_IS)
ListenEndpoint = _kind(Endpoint, _endpoint, _ENDPOINT_IS)
ListenPlace = _kind(Listen, _listen, _LISTEN_IS)
Mac = _kind(str, _mac, _MAC_IS)
ConfigurationFile = _kind(str, _configuration_file, _CONFIGURATION_FILE_IS)
LinuxInterface = _kind(str, lambda value: _text(value, _INTERFACE, _LINUX_INTERFACE_IS), _LINUX_INTERFACE_IS)
Device = _kind(str, _device, _DEVICE_IS)
ExceptionDevice = _kind(str, _exception_device, _EXCEPTION_DEVICE_IS)
Kernel = _kind(str, _kernel, _KERNEL_IS)
Select = _kind(str, _select, _SELECT_IS)
Payload = _kind(str, _payload, _PAYLOAD_IS)
Octets = _kind(str, _octets, OCTETS_IS)
Replacement = _kind(str, _replacement, REPLACEMENT_IS)
Header = _kind(str, _header, HEADER_IS)
Match = _kind(str, _match, "what the rule is for, such as a path or a host name")
Mask = _kind(str, _mask, _MASK_IS)
SocketPath = _kind(str, _socket_path, _SOCKET_IS)
SourcePorts = Annotated[PortRange, PlainValidator(_source_ports), PlainSerializer(list),
                        Field(description=_SOURCE_PORTS_IS)]
RssKey = _kind(str, _rss_key, _RSS_KEY_IS)
Core = Annotated[int, Field(strict=True, ge=0, description="the number of a core, such as 1")]


def _path(value, info):
    _require(isinstance(value, str) and value.startswith("/") and value.isascii() and value.isprintable() and " " not in value, _PATH_IS)
    return value


def _syn_cookies(value):
    whole = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 24
    _require(whole or value in ("off", "always"), _SYN_COOKIES_IS)
    return value


_SYN_COOKIES_IS = ('"off", "always", or from how many half-open connections on SYNs are answered with cookies (a whole number from 1 to '
                   "16777216)")
SynCookies = _kind(int | str, _syn_cookies, _SYN_COOKIES_IS)
_PATH_IS = 'a path that begins with "/", without spaces, such as "/health"'
Path = _kind(str, _path, _PATH_IS)
Weight = Annotated[int, Field(strict=True, ge=0, le=1000, description="a whole number from 0 to 1000")]


def whole(default, low, high, note=""):
    """Returns the field of a whole number from `low` to `high`."""
    return Field(default, strict=True, ge=low, le=high, description=f"a whole number from {low} to {high}{note}")


def seconds(default, low=0.05, high=30 * 86400, note=""):
    """Returns the field of a span of time in seconds (float)."""
    right = f"a number of seconds from {low:g} to {high:.0f}{note}"
    return Field(default, strict=True, ge=low, le=high, allow_inf_nan=False, description=right)


def rate():
    """Returns the field of a share of the packets (float), 0 by default."""
    return Field(0.0, strict=True, ge=0, le=1, allow_inf_nan=False,
                 description="a share of the packets from 0 to 1, such as 0.01 for one in a hundred")


def switch(default):
    """Returns the field of a boolean."""
    return Field(default, strict=True, description="true or false")


def choice(default, *words):
    """Returns the field of a Literal whose values are `words`."""
    return Field(default, description="one of " + ", ".join(f'"{word}"' for word in words))
