"""Select kernels by content, asked from Python: rules made as a configuration makes them, payloads with others' bytes before."""

import numpy as np
from configuration_text import two_networks
from hypothesis import strategies as st

from pipeline import assemble, configuration
from pipeline.kernels.counters import allocate_counters
from pipeline.kernels.services import ANSWER_CLIENT, NEED_MORE, NO_MATCH
from pipeline.steering import ALONE, make_steering

SERVICE = 1
"""The service that has the rules; number 0 has others, that nothing may be compared with."""


def selection_of(settings):
    """Returns the `Selection` of a configuration, as a worker alone has it."""
    steering, _ = make_steering(settings, ALONE)
    targets, _ = assemble.make_targets(settings, [-1] * len(settings.targets), ALONE, steering)
    counted = allocate_counters(len(settings.targets), len(settings.services), 1, 1)
    return assemble.make_selection(settings, targets, counted.targets)[0]


def selection(select, *rules):
    """Returns the `Selection` of a service with rules: matches, or dicts of a rule's keys; the n-th leads to member n % 3."""
    rules = [rule if isinstance(rule, dict) else {"match": rule} for rule in rules]
    targets = {"a": "10.2.0.11", "b": "10.2.0.12", "c": "10.2.0.13"}
    services = ({"name": "other", "listen": "10.1.0.1:79", "select": "http_path", "targets": ["a"],
                 "rules": [{"match": "/", "target": "a"}]},
                {"name": "asked", "listen": "10.1.0.1:80", "select": select, "targets": ["a", "b", "c"],
                 "rules": [{**rule, "target": "abc"[number % 3]} for number, rule in enumerate(rules)]})
    text = two_networks({"name": "select", "held_bytes": 4096, "connections": 64}, targets=targets, services=services)
    return selection_of(configuration.parse(text, "select.toml"))


def ask(kernel, chosen, payload):
    """Returns what a kernel answers to bytes that end with their array, so that a read beyond them is out of bounds."""
    view = np.frombuffer(b"\xff" * 64 + payload, np.uint8).copy()[64:]
    chosen.assembled[:] = 0xA5
    chosen.reply[:] = -1, -1, 0
    answer = int(kernel(view, SERVICE, chosen))
    assert view.tobytes() == payload, "the payload was changed"
    assert answer in (0, 1, 2, NO_MATCH, NEED_MORE, ANSWER_CLIENT)
    assert answer != ANSWER_CLIENT or (0 < chosen.reply[0] <= len(payload) and 0 < chosen.reply[1] < 256)
    return answer


def ask_all_cuts(kernel, chosen, payload, step=1):
    """Asks for each beginning of a payload; returns the answer to all of it. What is once known is not taken back."""
    answers = [ask(kernel, chosen, payload[:length]) for length in (*range(0, len(payload), step), len(payload))]
    known = [answer for answer in answers if answer != NEED_MORE]
    assert len(set(known)) <= 1 and answers[len(answers) - len(known):] == known, answers
    return answers[-1]


def damaged(payload, damages):
    """Returns a payload after damage: each octet is written at its place, but one above 255 cuts the payload there."""
    octets = bytearray(payload)
    for place, octet in damages:
        if octet > 255:
            del octets[place % (len(octets) + 1):]
        elif octets:
            octets[place % len(octets)] = octet
    return bytes(octets)


DAMAGES = st.lists(st.tuples(st.integers(0, 120) | st.integers(0, 2000),
                             st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, 256]) | st.integers(0, 255)), max_size=5)
