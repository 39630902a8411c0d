"""Hostile first bytes for every select kernel of ours, by the million: python tests/select_fuzz.py INPUTS SEED [KERNEL ...]

Each input is a first message that a client may well send, or bytes at random, and then damaged: octets written over, lengths that
lie, cut, doubled, joined with another, or made longer than anything is held. It ends where a page begins that nobody may touch,
and with NUMBA_BOUNDSCHECK=1 every index is checked as well. A kernel must answer what it may answer; must leave the payload alone;
and what it knew from a beginning of it, it must say of all of it.
"""
import sys

import numba
import numpy as np
from select_bed import SERVICE, selection
from test_select_http2 import field, request
from test_select_ldap import about, bind
from test_select_mqtt import connect
from test_select_postgresql import startup
from test_select_redis import array, inline
from test_select_tls import in_records, made_hello, protocol_names, server_names

from pipeline.kernel_places import kernel_at, place_of
from pipeline.kernels.services import ANSWER_CLIENT, NEED_MORE, NO_MATCH
from pipeline.own_memory import guarded_blocks
from pipeline.slots import names

ROOM, MEMBERS, PIECE = 8192, 3, 20_000
"""Octets that a payload has at most, members of the service, and inputs between two looks at what is counted."""
HELLO = made_hello(bytes(32), bytes(range(64)), [(10, bytes(8)), (0, server_names([(0, b"x.two.example")])), (16, protocol_names([b"h2", b"mqtt"]))])
FIELDS = (field(":method", b"GET") + field(":path", b"/index.html") + field(":authority", b"x.two.example", 1)
          + field("user-agent", b"curl/7.88", 2, coded=False))
WEB = [b"GET /a/b?c=d HTTP/1.1\r\nHost: x.two.example:80\r\nAccept: */*\r\n\r\n", b"POST http://one.example/a HTTP/1.0\r\nX: y\r\nhost:one.example\r\n\r\n",
       b"12345\n", b"GET /" + b"x" * 900 + b" HTTP/1.1\r\n" + b"A: b\r\n" * 60 + b"Host: one.example\r\n\r\n"]
TLS = [in_records(HELLO, []), in_records(HELLO, [1, 3, 50]), in_records(made_hello(b"", b"\x13\1", []), []), in_records(HELLO, [5] * 30)]
HTTP2 = [request(FIELDS), request(FIELDS, cuts=(3, 30), padding=7, priority=True), request(b"\x82\x84\x86" + field("host", b"one.example")),
         request(field(":path", b"/" + b"a" * 300) * 3)]
LDAP = [bind(b"cn=admin, dc=example,dc=org"), bind(b"CN=a\\,b , ou=people,dc=example,dc=org", long=4), about(0x63, b"dc=example,dc=org"),
        about(0x4A, b"ou=x,dc=example,dc=org", 2)]
POSTGRESQL = [startup({b"user": b"app_x", b"database": b"shop", b"options": b"-c a=b"}), startup({b"user": b"shop"}), b"\0\0\0\x08\x04\xd2\x16\x2f",
              b"\0\0\0\x08\x04\xd2\x16\x30", b"\0\0\0\x10\x04\xd2\x16\x2e" + bytes(8)]
REDIS = [array([b"AUTH", b"team-1", b"pass"]), array([b"HELLO", b"3", b"SETNAME", b"me", b"AUTH", b"red", b"pass"]), inline([b"AUTH", b"red", b"pass"]),
         array([b"GET", b"key"]), array([b"SET", b"k", b"v" * 600])]
MQTT = [connect(b"meter-7"), connect(b"meter-1", 5, b"\x11\0\0\0\1", 2), connect(b"x", 3, least=4)]
RULES = {
    "http_path": ["/", {"match": "/a", "exact": True}, "/a/b"], "http_host": ["one.example", "*.two.example", "x.two.example"],
    "http2_path": ["/", {"match": "/index.html", "exact": True}, "/a/"], "http2_authority": ["one.example", "*.two.example", "host.example"],
    "tls_sni": ["one.example", "*.two.example", "x.two.example"], "tls_alpn": ["h2", "http/1.1", "mqtt"],
    "ldap_dn": ["dc=example,dc=org", "ou=people,dc=example,dc=org", {"match": "cn=admin,dc=example,dc=org", "exact": True}],
    "postgresql_database": ["shop", "app_*", "app_x"], "postgresql_user": ["shop", "app_*", "app_x"], "redis_user": ["red", "default", "team-*"],
    "mqtt_client_id": ["meter-1", "meter-*", "x"],
    "octets": [{"match": "0x1603", "offset": 0}, {"match": "ab", "offset": 6}, {"match": "0x0f", "mask": "0x0f", "offset": 4000}]}
BEGINNINGS = {"http": WEB, "number": WEB, "http2": HTTP2, "tls": TLS, "ldap": LDAP, "postgresql": POSTGRESQL, "redis": REDIS, "mqtt": MQTT}
EVERYTHING = [*WEB, *TLS, *HTTP2, *LDAP, *POSTGRESQL, *REDIS, *MQTT]


@numba.njit(cache=False)
def put_length(octets, at, size, value):
    """Writes a length of `size` octets, the highest first, that need not be true."""
    for place in range(size):
        if at + place < octets.shape[0]:
            octets[at + place] = (value >> 8 * (size - 1 - place)) & 0xFF


@numba.njit(cache=False)
def damage(octets, length, other):
    """Damages what lies in octets[:length] once, in one of several ways; returns its new length."""
    way, at = np.random.randint(0, 9), np.random.randint(0, length + 1)
    if way == 0:
        return at
    if way == 1 and length > 0:
        put_length(octets, min(at, length - 1), np.random.randint(1, 5), (0, 1, 127, 128, 255, 65535, -1, length, length + 1)[np.random.randint(0, 9)])
    elif way == 2 and length > 0:
        put_length(octets, min(at, length - 1), 2, length - at + np.random.randint(-3, 4))
    elif way == 3:
        part = min(other.shape[0], octets.shape[0] - at)
        octets[at:at + part] = other[:part]
        return max(length, at + part)
    elif way == 4:
        more = min(np.random.randint(0, 64) if np.random.randint(0, 9) else octets.shape[0], octets.shape[0] - length)
        octets[length:length + more] = np.random.randint(0, 256)
        return length + more
    elif way == 5:
        part = min(length - at, octets.shape[0] - length)
        octets[length:length + part] = octets[at:at + part].copy()
        return length + part
    elif way == 6 and length > 0:
        part = min(np.random.randint(1, 9), length - min(at, length - 1))
        at = min(at, length - 1)
        octets[at:length - part] = octets[at + part:length].copy()
        return length - part
    elif length > 0:
        octets[min(at, length - 1)] = np.random.randint(0, 256)
    return length


@numba.njit(cache=False)
def make(octets, texts, starts):
    """Makes an input in `octets`; returns its length. The texts lie one behind the other."""
    first, second = np.random.randint(0, starts.shape[0] - 1), np.random.randint(0, starts.shape[0] - 1)
    text, length = texts[starts[first]:starts[first + 1]], 0
    if np.random.randint(0, 20) == 0:
        length = np.random.randint(0, 80)
        for place in range(length):
            octets[place] = np.random.randint(0, 256)
    else:
        length = text.shape[0]
        octets[:length] = text
    for _ in range(np.random.randint(0, 6)):
        length = damage(octets, length, texts[starts[second]:starts[second + 1]])
    return length


def driver(kernel, consistent):
    """Returns a function that asks a kernel about so many inputs: how many it answered a target, NEED_MORE, NO_MATCH and a reply to.

    The last number is 0, or what was wrong with the input that then lies at the end of the room, of the length before that.
    """
    @numba.njit(cache=False)
    def allowed(answer, chosen, length):
        if answer == ANSWER_CLIENT:
            return 0 < chosen.reply[0] <= length and 0 < chosen.reply[1] < 256
        return NEED_MORE <= answer < MEMBERS

    @numba.njit(cache=False)
    def drive(room, chosen, texts, starts, inputs, seed):
        np.random.seed(seed)
        octets, counted = np.zeros(room.shape[0], np.uint8), np.zeros(6, np.int64)
        for _ in range(inputs):
            length = make(octets, texts, starts)
            early = -9
            if consistent:
                cut = np.random.randint(0, length + 1)
                room[room.shape[0] - cut:] = octets[:cut]
                chosen.rewrite[0] = -1
                early = kernel(room[room.shape[0] - cut:], SERVICE, chosen)
            payload = room[room.shape[0] - length:]
            payload[:] = octets[:length]
            chosen.rewrite[0], counted[4] = -1, length
            answer = kernel(payload, SERVICE, chosen)
            if not allowed(answer, chosen, length):
                counted[5] = 1
            elif not np.array_equal(payload, octets[:length]):
                counted[5] = 2
            elif consistent and early not in (NEED_MORE, answer):
                counted[5] = 3
            if counted[5]:
                break
            counted[0 if answer >= 0 else -answer if answer != NO_MATCH else 1] += 1
        return counted
    return drive


def fuzz(name, inputs, seed):
    """Asks one kernel about so many inputs; returns a line about what it answered. Raises AssertionError."""
    chosen, kernel = selection(name, *RULES.get(name, [])), kernel_at("select", place_of("select", name))
    known = RULES.get(name)
    texts = (BEGINNINGS.get(name.partition("_")[0], []) or EVERYTHING) * 4 + EVERYTHING
    starts, [room] = np.cumsum([0, *map(len, texts)]), guarded_blocks([ROOM])
    run, octets = driver(kernel, known is not None), np.frombuffer(b"".join(texts), np.uint8)
    total = np.zeros(4, np.int64)
    for number in range(0, inputs, PIECE):
        chosen.reply[:] = 0
        counted = run(room, chosen, octets, starts, min(PIECE, inputs - number), seed + number)
        wrong = ["", "answers what it may not", "changes the payload", "takes back what it knew"][counted[5]]
        assert not wrong, f"{name} {wrong}: {room[ROOM - counted[4]:].tobytes().hex()}"
        total += counted[:4]
    assert total.sum() == inputs and (known is None or min(total[:3]) > 0), total
    return f"{name:<22}{inputs:>12,} inputs: a target {total[0]:,}, none {total[1]:,}, more needed {total[2]:,}, answered {total[3]:,}"


if __name__ == "__main__":
    print("bounds checked" if numba.config.BOUNDSCHECK else "bounds are not checked")
    for each in sys.argv[3:] or names("select"):
        print(fuzz(each, int(sys.argv[1]), int(sys.argv[2])), flush=True)
