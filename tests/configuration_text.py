"""Configurations as text (TOML) for tests: tables of Python values, and the network that many of them share."""
TWO_TARGETS = {"a": "10.2.0.11", "b": "10.2.0.12"}
ONE_SERVICE = ({"name": "web", "listen": "10.1.0.1:80", "targets": ["a", "b"]},)
MEMORY = "net_null0", "net_null1"
"""Devices of ports for which a test puts memory ports."""


def value(content):
    """Returns a value as TOML writes it."""
    if isinstance(content, bool):
        return str(content).lower()
    if isinstance(content, (list, tuple)):
        return "[" + ", ".join(map(value, content)) + "]"
    if isinstance(content, dict):
        return "{ " + ", ".join(f"{key} = {value(each)}" for key, each in content.items()) + " }"
    return '"' + content.replace("\n", "\\n") + '"' if isinstance(content, str) else repr(content)


def table(header, content):
    """Returns a table; `header` with its brackets, such as `[[ports]]`."""
    return "\n".join([header, *(f"{key} = {value(each)}" for key, each in content.items())]) + "\n\n"


def exception_port(exceptions, name):
    """Returns the key `exception` of a port's table, if the port is among those that have one: the first has kx0, and so on."""
    number = exceptions.index(name) if name in exceptions else None
    return {} if number is None else {"exception": {"device": f"net_tap{7 + number},iface=kx{number}"}}


def two_networks(engine, ports=("left", "right"), devices=MEMORY, gateway="10.2.0.254", targets=TWO_TARGETS, services=ONE_SERVICE,
                 exceptions=()):
    """Returns a configuration: a port on 10.1.0.0/24 and one on 10.2.0.0/24, 10.9.0.0/16 behind a gateway on one of these.

    `targets` are addresses by id, `services` and `engine` contents of tables (dicts); `exceptions` the names of the ports that
    have an exception port beside them.
    """
    named = zip(ports, devices, ("10.1.0.1/24", "10.2.0.1/24"), strict=True)
    return "".join([
        table("[engine]", engine),
        *(table("[[ports]]", {"name": name, "device": device, "addresses": [address], **exception_port(exceptions, name)})
          for name, device, address in named),
        table("[[routes]]", {"network": "10.9.0.0/16", "gateway": gateway}),
        *(table("[[targets]]", {"id": name, "ip": ip, "port": 8080}) for name, ip in targets.items()),
        *(table("[[services]]", service) for service in services)])
