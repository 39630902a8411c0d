"""Services for `tcp.proxy.Proxy` that send and take PROXY headers, all of them in one configuration: one loop is compiled for all."""
from tcp import payload_services
from tcp.proxy import RULES, SERVICE

SENDS_TEXT, SENDS_BINARY, SENDS_FIRST, SENDS_SHAPED = 7500, 7501, 7502, 7503
TAKES, TAKES_FIRST, TAKES_AND_SENDS, TAKES_BY_PATH, TAKES_OR_B = 7510, 7511, 7512, 7513, 7514
TELLS, TELLS_FIRST, TELLS_ORIGIN = 7530, 7531, 7532
POSTGRESQL, POSTGRESQL_OR_B, POSTGRESQL_PROXIED, POSTGRESQL_SHAPED = 7540, 7541, 7542, 7543
"""By the database: `shop` to a, and in case of need to b; `other` to b; and nothing else, or all else to b."""
QUICK, RANGE, WITHIN = 7520, 7600, 7650
"""With time-outs of its own; a range of 100 ports, and a range of 10 within it."""
NEAR, ROUTED = "10.1.0.32/28:80-81", "203.0.113.0/24:80"
"""Prefixes: in the network of the clients' port, and in none."""
TRUSTED, UNTRUSTED = "10.1.0.2", "10.1.0.200"
DATABASES = {"select": '"postgresql_database"',
             "rules": '[{ match = "shop", target = "a" }, { match = "other", target = "b" }]'}
ACCEPT = '["10.1.0.0/25"]'


def services():
    """Returns the services (list of dicts), behind which stand a and b in turn."""
    swell = f'"{payload_services.PLACE}:swell"'
    rows = [(SENDS_TEXT, {"proxy_protocol": '"v1"'}), (SENDS_BINARY, {"proxy_protocol": '"v2"'}),
            (SENDS_FIRST, {"proxy_protocol": '"v2"', "binding": '"immediate"'}),
            (SENDS_SHAPED, {"proxy_protocol": '"v2"', "payload_to_target": swell, "payload_to_client": swell}),
            (TAKES, {"accept_proxy_protocol": ACCEPT}),
            (TAKES_FIRST, {"accept_proxy_protocol": ACCEPT, "binding": '"immediate"', "proxy_protocol": '"v1"'}),
            (TAKES_AND_SENDS, {"accept_proxy_protocol": ACCEPT, "proxy_protocol": '"v2"'}),
            (TAKES_BY_PATH, {"accept_proxy_protocol": ACCEPT, "select": '"http_path"', "rules": RULES}),
            (POSTGRESQL, DATABASES), (POSTGRESQL_OR_B, {**DATABASES, "default": '"b"', "timeouts": "{ first_data = 3.0 }"}),
            (POSTGRESQL_PROXIED, {**DATABASES, "default": '"b"', "accept_proxy_protocol": ACCEPT, "proxy_protocol": '"v2"'}),
            (POSTGRESQL_SHAPED, {**DATABASES, "payload_to_target": swell, "payload_to_client": swell}),
            (TELLS, {"toa": "true"}), (TELLS_FIRST, {"toa": "true", "binding": '"immediate"'}),
            (TELLS_ORIGIN, {"toa": "true", "accept_proxy_protocol": ACCEPT}),
            (TAKES_OR_B, {"accept_proxy_protocol": ACCEPT, "default": '"b"'})]
    places = [(f"{SERVICE}:{RANGE}-{RANGE + 99}", '["a"]'), (f"{SERVICE}:{WITHIN}-{WITHIN + 9}", '["b"]'), (NEAR, '["b"]'), (ROUTED, '["c"]'),
              ("203.0.113.64/26:80", '["a"]')]
    more = [{"name": f'"place{number}"', "listen": f'"{place}"', "targets": targets} for number, (place, targets) in enumerate(places)]
    more += [{"name": '"quick"', "listen": f'"{SERVICE}:{QUICK}"', "targets": '["a"]',
              "timeouts": "{ first_data = 1.0, established = 2.0, time_wait = 0.5 }"}]
    return more + [{"name": f'"proxied{port}"', "listen": f'"{SERVICE}:{port}"', "targets": '["a", "b"]', **keys} for port, keys in rows]


def text_header(client, address=None, port=None):
    """Returns the header of version 1 (bytes) of a client's End, or of another address and port."""
    return f"PROXY TCP4 {address or client.own[0]} {client.other[0]} {port or client.own[1]} {client.other[1]}\r\n".encode()


def binary_header(client, address=None, port=None, command=0x21, family=0x11, more=b""):
    """Returns the header of version 2 (bytes) of a client's End, or of another address and port; `more` follows the addresses."""
    ends = b"".join(bytes(map(int, end.split("."))) for end in (address or client.own[0], client.other[0]))
    ends += (port or client.own[1]).to_bytes(2, "big") + client.other[1].to_bytes(2, "big") + more
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, family]) + len(ends).to_bytes(2, "big") + ends
