"""What is counted: drop reasons, notices, events of a connection's two sides, and the totals of a worker.

Every counter is an int64 that its worker alone writes and that Python reads while the loop runs.
"""
from typing import NamedTuple

import numpy as np

DROP_REASONS = (
    "mbuf_chain", "runt_frame", "other_mac", "other_ethertype", "other_vlan", "ipv4_header", "ipv4_length",
    "ipv4_checksum", "fragment", "bad_source", "other_protocol", "tcp_header", "tcp_checksum", "arp_invalid",
    "icmp_invalid", "icmp_other", "not_ours", "stray_segment", "syn_of_target", "unexpected_segment", "held_already",
    "out_of_order_first_data", "first_data_too_long", "held_pool_empty", "connections_exhausted", "flow_table_full",
    "source_ports_exhausted", "no_route", "unresolved_neighbour", "neighbours_exhausted", "ttl_exceeded",
    "larger_than_mtu", "reset_rate_limit", "draining", "no_mbuf", "transmit_full", "segments_full",
    "icmp_quote_invalid", "icmp_no_connection", "icmp_not_in_flight", "icmp_before_binding",
    "waiting_room_full", "waiting_already", "waited_too_long", "ack_storm", "mbufs_short", "edit_log_full", "first_copy_gone",
    "opening_exhausted", "hand_over_full", "payload_refused", "payload_shown_again", "denied_by_engine", "denied_by_service",
    "cookie_out_of_order", "service_full", "service_rate", "source_full", "source_rate",
)
"""Reasons for which a packet, or a segment of the engine's own, is not sent; the index is the counter's."""

(DROP_MBUF_CHAIN, DROP_RUNT_FRAME, DROP_OTHER_MAC, DROP_OTHER_ETHERTYPE, DROP_OTHER_VLAN, DROP_IPV4_HEADER,
 DROP_IPV4_LENGTH, DROP_IPV4_CHECKSUM, DROP_FRAGMENT, DROP_BAD_SOURCE, DROP_OTHER_PROTOCOL, DROP_TCP_HEADER,
 DROP_TCP_CHECKSUM, DROP_ARP_INVALID, DROP_ICMP_INVALID, DROP_ICMP_OTHER, DROP_NOT_OURS,
 DROP_STRAY_SEGMENT, DROP_SYN_OF_TARGET, DROP_UNEXPECTED_SEGMENT, DROP_HELD_ALREADY, DROP_OUT_OF_ORDER_FIRST_DATA,
 DROP_FIRST_DATA_TOO_LONG, DROP_HELD_POOL_EMPTY, DROP_CONNECTIONS_EXHAUSTED, DROP_FLOW_TABLE_FULL,
 DROP_SOURCE_PORTS_EXHAUSTED, DROP_NO_ROUTE, DROP_UNRESOLVED_NEIGHBOUR, DROP_NEIGHBOURS_EXHAUSTED,
 DROP_TTL_EXCEEDED, DROP_LARGER_THAN_MTU, DROP_RESET_RATE_LIMIT, DROP_DRAINING, DROP_NO_MBUF, DROP_TRANSMIT_FULL,
 DROP_SEGMENTS_FULL, DROP_ICMP_QUOTE_INVALID, DROP_ICMP_NO_CONNECTION, DROP_ICMP_NOT_IN_FLIGHT,
 DROP_ICMP_BEFORE_BINDING, DROP_WAITING_ROOM_FULL, DROP_WAITING_ALREADY,
 DROP_WAITED_TOO_LONG, DROP_ACK_STORM, DROP_MBUFS_SHORT, DROP_EDIT_LOG_FULL,
 DROP_FIRST_COPY_GONE, DROP_OPENING_EXHAUSTED, DROP_HAND_OVER_FULL, DROP_PAYLOAD_REFUSED,
 DROP_PAYLOAD_SHOWN_AGAIN, DROP_DENIED_BY_ENGINE, DROP_DENIED_BY_SERVICE, DROP_COOKIE_OUT_OF_ORDER,
 DROP_SERVICE_FULL, DROP_SERVICE_RATE, DROP_SOURCE_FULL, DROP_SOURCE_RATE) = range(len(DROP_REASONS))

NOTICES = (
    "ipv4_options", "vlan_priority_tag", "several_segments", "duplicate_address", "neighbour_moved", "resets_sent",
    "syn_ack_retransmitted", "syn_retransmitted", "held_retransmitted", "challenge_acks", "arp_requests",
    "arp_replies", "echo_replies", "records_lost", "refused_by_select", "first_data_answered_fin",
    "icmp_errors_passed", "icmp_errors_sent", "path_mtu_lowered",
    "other_target", "first_data_fallback", "keep_alives_answered", "old_connections_reset",
    "segments_waited", "split", "segments_reshaped", "payload_kernel_errors",
    "repeated_otherwise", "first_copies_given_up", "handed_over", "taken_over", "to_kernel", "from_kernel",
    "proxy_headers_sent", "proxy_headers_taken", "proxy_headers_malformed",
    "denied_by_reset", "cookies_sent", "cookies_accepted", "cookies_refused",
    "requests_answered", "answers_repeated", "sources_exhausted", "limited_by_reset",
)
"""What is worth counting of packets that are not dropped, and of the engine's own doings."""

(NOTICE_IPV4_OPTIONS, NOTICE_VLAN_PRIORITY, NOTICE_SEVERAL_SEGMENTS, NOTICE_DUPLICATE_ADDRESS,
 NOTICE_NEIGHBOUR_MOVED, NOTICE_RESETS_SENT, NOTICE_SYN_ACK_RETRANSMITTED, NOTICE_SYN_RETRANSMITTED,
 NOTICE_HELD_RETRANSMITTED, NOTICE_CHALLENGE_ACKS, NOTICE_ARP_REQUESTS, NOTICE_ARP_REPLIES, NOTICE_ECHO_REPLIES,
 NOTICE_RECORDS_LOST, NOTICE_REFUSED_BY_SELECT, NOTICE_FIRST_DATA_ANSWERED_FIN,
 NOTICE_ICMP_ERRORS_PASSED, NOTICE_ICMP_ERRORS_SENT, NOTICE_PATH_MTU_LOWERED, NOTICE_OTHER_TARGET,
 NOTICE_FIRST_DATA_FALLBACK, NOTICE_KEEP_ALIVES_ANSWERED, NOTICE_OLD_CONNECTIONS_RESET,
 NOTICE_SEGMENTS_WAITED, NOTICE_SPLIT, NOTICE_SEGMENTS_RESHAPED, NOTICE_PAYLOAD_KERNEL_ERRORS,
 NOTICE_REPEATED_OTHERWISE, NOTICE_FIRST_COPIES_GIVEN_UP, NOTICE_HANDED_OVER, NOTICE_TAKEN_OVER,
 NOTICE_TO_KERNEL, NOTICE_FROM_KERNEL,
 NOTICE_PROXY_HEADERS_SENT, NOTICE_PROXY_HEADERS_TAKEN, NOTICE_PROXY_HEADERS_MALFORMED,
 NOTICE_DENIED_BY_RESET, NOTICE_COOKIES_SENT, NOTICE_COOKIES_ACCEPTED, NOTICE_COOKIES_REFUSED,
 NOTICE_REQUESTS_ANSWERED, NOTICE_ANSWERS_REPEATED, NOTICE_SOURCES_EXHAUSTED, NOTICE_LIMITED_BY_RESET) = range(len(NOTICES))

EVENTS = (
    "received_syn", "sent_syn", "received_syn_ack", "sent_syn_ack", "received_ack_of_syn_ack",
    "sent_ack_of_syn_ack", "received_fin_active", "received_fin_passive", "sent_fin_active", "sent_fin_passive",
    "received_ack_of_fin", "sent_ack_of_fin", "received_rst", "sent_rst", "received_payload", "sent_payload",
    "unexpected",
)
"""ProxyEngine's counters of each side (reference row 14). A FIN is active where it is the connection's first, and
passive where it answers the other's; both are counted where they came in and where they went out."""

(RECEIVED_SYN, SENT_SYN, RECEIVED_SYN_ACK, SENT_SYN_ACK, RECEIVED_ACK_OF_SYN_ACK, SENT_ACK_OF_SYN_ACK,
 RECEIVED_FIN_ACTIVE, RECEIVED_FIN_PASSIVE, SENT_FIN_ACTIVE, SENT_FIN_PASSIVE, RECEIVED_ACK_OF_FIN, SENT_ACK_OF_FIN,
 RECEIVED_RST, SENT_RST, RECEIVED_PAYLOAD, SENT_PAYLOAD, UNEXPECTED) = range(len(EVENTS))

TOTALS = ("bursts", "packets", "transmitted", "opened", "closed", "open", "expired_timers", "loops", "sleeps")
TOTAL_BURSTS, TOTAL_PACKETS, TOTAL_TRANSMITTED, TOTAL_OPENED, TOTAL_CLOSED, TOTAL_OPEN, TOTAL_EXPIRED, TOTAL_LOOPS, \
    TOTAL_SLEEPS = range(len(TOTALS))

OF_TARGET = ("open", "connections", "refused", "timeouts", "unreachable")
OF_TARGET_OPEN, OF_TARGET_CONNECTIONS, OF_TARGET_REFUSED, OF_TARGET_TIMEOUTS, OF_TARGET_UNREACHABLE = range(len(OF_TARGET))
OF_SERVICE = ("open", "connections", "refused")
OF_SERVICE_OPEN, OF_SERVICE_CONNECTIONS, OF_SERVICE_REFUSED = range(len(OF_SERVICE))


class Counters(NamedTuple):
    """int64 counters of a worker."""

    drops: np.ndarray      # [len(DROP_REASONS)]
    notices: np.ndarray    # [len(NOTICES)]
    events: np.ndarray     # [2 sides, len(EVENTS)]
    totals: np.ndarray     # [len(TOTALS)]
    states: np.ndarray     # [8] connections in each state
    causes: np.ndarray     # [2 sides, len(CAUSES)]
    targets: np.ndarray    # [targets, len(OF_TARGET)]
    services: np.ndarray   # [services, len(OF_SERVICE)]


def allocate_counters(targets, services, causes, states):
    """Returns zeroed `Counters` for that many targets, services, release causes and states."""
    shapes = [len(DROP_REASONS), len(NOTICES), (2, len(EVENTS)), len(TOTALS), states, (2, causes),
              (max(targets, 1), len(OF_TARGET)), (max(services, 1), len(OF_SERVICE))]
    return Counters(*(np.zeros(shape, np.int64) for shape in shapes))
