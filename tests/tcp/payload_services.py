"""Services for `tcp.proxy.Proxy` with payload kernels, and select kernels that rewrite.

All tests of changed payload have all of them, in this order: so one loop, compiled once, serves them all.
"""
import json
import pathlib

from peers import payload_kernels
from tcp import spelling
from tcp.proxy import SERVICE

PAIRS = [("everything", "everything"), ("swell", None), (None, "swell"), ("delete_digits", "delete_digits"),
         ("number_up", "number_down"), ("announce", "announce"), ("swallow", "swallow"), ("overreach", "overreach"),
         (None, "everything")]
"""Kernels toward the target and toward the client, of services on ports from FIRST_PORT on."""
FIRST_PORT = 7100
SELECTS = ("rename", "cut_short", "shout", "too_much")
"""Select kernels that rewrite, of services on ports from SELECT_PORT on; the last one's payload goes to `swell` as well."""
SELECT_PORT = 7400
RULES = {
    "replace": [("to_target", "replace", {"search": "secret", "replace": "***", "first": 200}),
                ("to_client", "replace", {"search": "ab", "replace": "lengthened"})],
    "refuse": [("to_target", "refuse_pattern", {"search": "/etc/passwd"}), ("to_client", "refuse_pattern", {"search": "virus"})],
    "limit": [("to_target", "rate_limit", {"rate": 100, "burst": 10}), ("to_target", "replace", {"search": "a", "replace": "xyz"})],
    "header": [("to_target", "insert_header", {"header": "X-Via: proxy"}), ("to_target", "count_pattern", {"search": "proxy"}),
               ("to_client", "count_pattern", {"search": "200"})],
    "ldap": [("to_target", "ldap_guard", {"search": "dc=a,dc=org", "replace": "ou=people,dc=example,dc=com"})],
}
"""Services with payload rules, on ports from RULES_PORT on in this order: direction, kernel, what it is told."""
RULES_PORT = 7600
PLACE = pathlib.Path(payload_kernels.__file__).resolve()


def port_of(pair, immediate=False):
    """Returns the port of the service with these kernels; `immediate`: bound to target `a` at its SYN."""
    return FIRST_PORT + PAIRS.index(pair) + (100 if immediate else 0)


def rules_port(name):
    """Returns the port of the service with payload rules of that name."""
    return RULES_PORT + list(RULES).index(name)


def _rules():
    """Returns the services with payload rules."""
    rows = []
    for name, chain in RULES.items():
        tables = [{"direction": direction, "kernel": kernel, **told} for direction, kernel, told in chain]
        listed = ", ".join("{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in each.items()) + "}" for each in tables)
        rows.append({"name": f'"rules-{name}"', "listen": f'"{SERVICE}:{rules_port(name)}"', "targets": '["a"]', "payload_rules": f"[{listed}]"})
    return rows


def _spelling():
    """Returns the services with the kernels of `tcp.spelling`."""
    spell = f'"{spelling.__file__}:spell"'
    both = {"targets": '["a"]', "payload_to_target": spell, "payload_to_client": spell}
    return [{"name": '"shaped"', "listen": f'"{SERVICE}:{spelling.SHAPED}"', **both},
            {"name": '"shaped-first"', "listen": f'"{SERVICE}:{spelling.SHAPED_FIRST}"', "binding": '"immediate"', **both},
            {"name": '"shaped-few"', "listen": f'"{SERVICE}:{spelling.SHAPED_FEW}"', **both, "targets": '["c"]',
             "source_ports": "[21000, 21002]"},
            {"name": '"rewrites"', "listen": f'"{SERVICE}:{spelling.REWRITES}"', "targets": '["a"]',
             "select": f'"{spelling.__file__}:rewriting"'}]


def services():
    """Returns further services (tuple of dicts): those of `tcp.spelling`, and each pair with both delayed and immediate binding.
    """
    rows = []
    for pair in PAIRS:
        for immediate in (False, True):
            number = port_of(pair, immediate)
            row = {"name": f'"payload{number}"', "listen": f'"{SERVICE}:{number}"', "targets": '["a"]'}
            keys = zip(("payload_to_target", "payload_to_client"), pair, strict=True)
            row.update((key, f'"{PLACE}:{name}"') for key, name in keys if name)
            rows.append(row | ({"binding": '"immediate"'} if immediate else {}))
    for place, select in enumerate((*SELECTS, "rename")):
        row = {"name": f'"select{place}"', "listen": f'"{SERVICE}:{SELECT_PORT + place}"', "targets": '["a", "b"]',
               "select": f'"{PLACE}:{select}"'}
        rows.append(row | ({"payload_to_target": f'"{PLACE}:swell"'} if place == len(SELECTS) else {}))
    return (*rows, *_rules(), *_spelling())
