"""`mqtt_client_id` against what CONNECT packets were made of, of three versions, cut and damaged."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated
from select_bed import DAMAGES, ask, ask_all_cuts, damaged, selection

from pipeline.kernels.select_mqtt import mqtt_client_id
from pipeline.kernels.services import NEED_MORE, NO_MATCH

CLIENTS = selection("mqtt_client_id", "meter-1", "meter-*", "gäteway")


def by_client(client):
    """The member that CLIENTS has for a client identifier (bytes)."""
    return {b"meter-1": 0, "gäteway".encode(): 2}.get(client, 1 if client.startswith(b"meter-") else NO_MATCH)


def variable(value, least=1):
    """Returns a Variable Byte Integer of `least` octets or more."""
    octets = []
    while value > 127 or len(octets) + 1 < least:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes([*octets, value])


def text(content):
    """Returns a text behind its length."""
    return struct.pack("!H", len(content)) + content


def connect(client, level=4, properties=b"", least=1):
    """Returns a CONNECT packet of a protocol level, with a user's name behind the client identifier."""
    body = text(b"MQIsdp" if level == 3 else b"MQTT") + bytes([level, 0x82, 0, 60])
    body += variable(len(properties), least) + properties if level == 5 else b""
    body += text(client) + text(b"meter-1")
    return b"\x10" + variable(len(body), least) + body


CLIENT = st.sampled_from([b"meter-1", b"meter-2", b"meter-", b"meter", "gäteway".encode(), b"", b"Meter-1"]) | st.binary(max_size=20)
PACKETS = st.tuples(CLIENT, st.sampled_from([3, 4, 5]), st.binary(max_size=20) | st.just(b"x" * 200), st.integers(1, 4))


@generated
@given(PACKETS, st.binary(max_size=3))
def test_the_client_identifier_is_found(packet, behind):
    assert ask_all_cuts(mqtt_client_id, CLIENTS, connect(*packet) + behind) == by_client(packet[0])


@pytest.mark.parametrize("payload", [b"GET", b"\x20", b"\x10\xff\xff\xff\xff", b"\x10\x10\0\4MQTX", b"\x10\x10\0\5", b"\x10\x08\0\4MQTT\4\2",
                                     b"\x10\x0c\0\4MQTT\4\2\0\x3c\0\7", b"\x10\x0c\0\4MQTT\5\2\0\x3c\x7f\0",
                                     b"\x10\x0b\0\4MQTT\5\2\0\x3c\xff"])
def test_what_is_no_connect_does_not_wait_for_more(payload):
    payload += b"" if len(payload) < 9 else bytes(8)
    assert ask(mqtt_client_id, CLIENTS, payload) == NO_MATCH


@pytest.mark.parametrize("payload", [b"", b"\x10", b"\x10\x80", b"\x10\x20", b"\x10\x20\0\4MQ", b"\x10\x20\0\4MQTT", connect(b"meter-1")[:17]])
def test_what_may_become_one_does(payload):
    assert ask(mqtt_client_id, CLIENTS, payload) == NEED_MORE


@generated
@given(PACKETS, DAMAGES)
def test_damaged_packets_are_answered_and_nothing_is_taken_back(packet, damages):
    ask_all_cuts(mqtt_client_id, CLIENTS, damaged(connect(*packet), damages))


@generated
@given(st.binary(max_size=30) | st.binary(max_size=30).map(lambda octets: b"\x10\x18\0\4MQTT\5" + octets))
def test_any_bytes_are_answered(payload):
    ask_all_cuts(mqtt_client_id, CLIENTS, payload)
