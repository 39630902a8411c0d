"""The conformance suite is complete: each rule of SPLICE.md and each case that peers.md names has a test, found by its name.

Rules and cases are listed here clause by clause, each with the test that was written for it; a rule, a clause or a case
without a test fails. Sections 6 (PROXY
protocol) and 7 (SYN cookies) of SPLICE.md are not built yet.
"""
import pathlib
import re

import pytest

RULES = ("1.1", "1.2", "1.3", "1.4", "1.5", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "3.1", "3.2",
         "4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "5.1", "5.2", "5.3", "8.1", "9")

CLAUSES = {
    "1.1": {
        "the client's numbers pass, the target's are shifted by a constant":
            "rule_1_1_the_targets_numbers_are_shifted_by_one_constant_for_payload_fin_and_rst",
        "a shift for the client's direction too": "rule_3_2_the_clients_direction_is_shifted_where_the_initial_number_was_raised"},
    "1.2": {
        "payload is not acknowledged": "rule_1_2_payload_that_tells_at_once_is_acknowledged_by_the_target_alone",
        "but after need more": "rule_1_2_bytes_that_do_not_tell_yet_are_acknowledged_and_ours_to_deliver",
        "then kept and retransmitted": "rule_1_2_what_was_acknowledged_is_sent_again_until_the_target_has_all_of_it",
        "within the target's window": "rule_1_2_held_bytes_are_sent_within_the_targets_window",
        "within the target's MSS": "rule_1_2_what_was_acknowledged_is_cut_to_the_targets_mss",
        "acknowledgements never go back": "rule_1_2_acknowledgements_shown_to_the_client_never_go_back"},
    "1.3": {
        "the SYN-ACK's window": "rule_1_3_the_window_of_the_syn_ack_is_what_can_be_held",
        "the limit triggers the fall-back": "rule_1_3_what_fills_the_held_bytes_goes_to_the_default",
        "which may be a RST": "rule_1_3_what_fills_the_held_bytes_is_reset_where_there_is_no_default",
        "limits for a connection and for all": "rule_1_3_what_waits_is_limited_for_a_connection_and_for_all",
        "never zero of our own": "rule_1_3_we_never_advertise_a_window_of_zero_before_the_target_is_there",
        "a zero window of the target passes": "rule_1_3_a_zero_window_of_the_target_passes_and_so_does_its_opening"},
    "1.4": {
        "in any order": "rule_1_4_a_first_flight_reaches_the_target_whole_whatever_order_it_comes_in",
        "duplicated": "rule_1_4_duplicates_in_a_first_flight_are_held_once",
        "the first copy wins": "rule_1_4_the_first_copy_wins_however_the_second_is_cut",
        "always the held copy is sent": "rule_1_4_other_bytes_sent_again_reach_the_target_in_no_state",
        "translated in each transmission": "rule_1_4_held_bytes_are_sent_again_in_the_targets_numbers",
        "until it is acknowledged": "rule_1_4_held_payload_is_sent_again_until_it_is_acknowledged",
        "past a payload kernel": "rule_1_4_other_bytes_sent_again_are_the_first_copy_where_nothing_was_changed",
        "what is no longer kept": "rule_1_4_what_was_given_up_and_is_sent_again_ends_the_connection_on_both_sides"},
    "1.5": {
        "FIN, RST and state changes are verified": "rule_1_5_a_corrupt_segment_changes_no_state",
        "accepted bytes too": "rule_1_5_corrupt_first_payload_is_not_accepted",
        "what is corrupt stays corrupt": "rule_1_5_corrupt_payload_in_the_splice_stays_corrupt_and_moves_nothing",
        "tracking moves only within the window": "rule_1_5_numbers_far_outside_the_window_move_nothing"},
    "2.1": {
        "a subset of the client's offer": "rule_2_1_every_combination_of_options",
        "what leaves is right by tshark": "rule_2_1_tshark_finds_nothing_wrong_in_any_frame",
        "the SYN offers what the SYN-ACK agreed": "rule_2_1_the_syn_offers_exactly_what_the_syn_ack_agreed",
        "the intersection is learned": "rule_2_1_the_offer_becomes_what_every_target_of_the_group_supports"},
    "2.2": {
        "unknown options are removed": "rule_2_2_unknown_options_are_removed_from_syns",
        "data in a SYN is ignored": "rule_2_2_data_in_a_syn_is_ignored",
        "ECN is agreed": "rule_2_2_ecn_is_agreed_like_the_rest",
        "marks on held bytes": "rule_2_2_a_mark_on_held_bytes_goes_on_to_a_target_that_agrees_once",
        "and declined": "rule_2_2_marks_are_cleared_toward_a_target_that_declines_ecn"},
    "2.3": {
        "shown in the other's scale": "rule_2_3_windows_are_shown_in_the_scale_that_each_end_was_told",
        "never scaled on a SYN": "rule_2_3_a_syn_carries_its_window_unscaled",
        "the group's learned scale": "rule_2_3_the_offer_becomes_the_largest_scale_that_a_target_of_the_group_has_shown",
        "else 10": "rule_2_3_a_syn_carries_its_window_unscaled"},
    "2.4": {
        "a keyed clock for each connection": "rule_2_4_our_clock_is_another_for_each_connection_and_goes_with_time",
        "the shift": "rule_2_4_the_shift_is_our_last_tsval_less_the_targets_first_plus_the_time_between",
        "TSval and TSecr": "rule_2_4_the_targets_tsval_and_the_clients_tsecr_are_shifted_by_one_constant",
        "the SYN's TSval is the lowest": "rule_2_4_the_syn_carries_the_lowest_tsval_of_all_that_follows_it"},
    "2.5": {
        "timestamps are inserted": "rule_2_5_every_segment_toward_the_client_but_a_rst_gets_a_timestamp",
        "as RFC 7323 has them": "rule_2_5_the_inserted_tsecr_is_the_clients_last_tsval",
        "with room for them": "rule_2_5_what_a_target_without_timestamps_sends_has_room_for_them",
        "blocks are removed": "rule_2_5_blocks_of_the_client_are_removed_toward_a_target_without_sack"},
    "2.6": {
        "the least of the group's": "rule_2_6_the_mss_of_the_syn_ack_is_the_least_that_the_group_has_shown",
        "segments are split": "rule_2_6_segments_too_long_for_the_target_are_split",
        "held bytes are re-segmented": "rule_2_6_held_bytes_are_cut_to_a_lower_mss_of_the_target"},
    "3.1": {
        "back-off and a cap": "rule_3_1_the_syn_is_retransmitted_with_back_off_and_a_cap",
        "refused": "rule_3_1_a_refusing_target_is_replaced_and_the_client_notices_nothing",
        "silent": "rule_3_1_a_silent_target_is_replaced",
        "reset before any held byte was sent": "rule_3_1_a_target_that_resets_before_any_held_byte_was_sent_is_replaced",
        "with nothing held too": "rule_3_1_an_immediate_target_that_resets_before_any_byte_is_replaced",
        "up to a number, then a RST": "rule_3_1_after_a_number_of_failures_the_client_gets_a_rst",
        "not after the first held byte": "rule_3_1_after_the_first_held_byte_no_other_target_is_tried",
        "a late SYN-ACK": "rule_3_1_a_late_syn_ack_of_a_target_given_up_gets_a_rst",
        "its port stays reserved": "rule_3_1_the_port_of_a_target_given_up_stays_reserved_until_its_late_syn_ack"},
    "3.2": {
        "oldest first": "rule_3_2_source_ports_are_taken_oldest_first_for_each_target",
        "numbers above the last": "rule_3_2_a_four_tuple_used_again_soon_has_higher_numbers",
        "TSvals above the last": "rule_3_2_tsvals_lie_above_the_last_ones_used_too",
        "whatever the client's clock": "rule_3_2_our_timestamps_lie_above_the_old_ones_whatever_the_clients_clock",
        "a bare ACK": "rule_3_2_a_bare_ack_gets_a_rst_and_the_syn_again",
        "targets that close first": "rule_3_2_targets_that_close_first_leave_our_ports_free_for_a_thousand_a_second"},
    "4.1": {
        "an exact RST": "rule_4_1_a_rst_with_exactly_the_last_acknowledged_number_closes_at_once",
        "a RST in the window": "rule_4_1_a_rst_in_the_window_passes_and_the_challenge_gets_the_exact_one",
        "a scaled window": "rule_4_1_a_rst_behind_a_wide_window_of_payload_passes",
        "a RST outside it": "rule_4_1_a_rst_outside_every_window_is_dropped",
        "its timer is shortened": "rule_4_1_a_rst_in_the_window_that_nobody_contradicts_ends_the_connection_soon",
        "later traffic undoes that": "rule_4_1_later_traffic_undoes_a_forged_rst",
        "but nothing outside the window": "rule_4_1_a_segment_outside_the_window_does_not_undo_it",
        "a SYN in the window": "rule_4_1_a_syn_in_the_window_is_answered_by_us_with_the_last_numbers_relayed",
        "its timestamp": "rule_2_4_a_challenge_does_not_outrun_a_target_with_a_slow_clock",
        "rate-limited": "rule_4_1_challenges_are_rate_limited_and_the_budget_comes_back"},
    "4.2": {
        "the receiver's last ACK": "rule_4_2_our_rsts_carry_the_last_number_that_each_receiver_has_acknowledged",
        "the exact RST after a challenge": "rule_4_2_a_challenge_to_our_rst_is_answered_with_the_exact_one",
        "also where strays are dropped": "rule_4_2_a_challenge_to_our_rst_is_answered_where_strays_are_dropped"},
    "4.3": {
        "counted and cut": "rule_4_3_an_ack_storm_is_counted_and_cut",
        "not fast retransmit's duplicates": "rule_4_3_the_duplicates_of_a_fast_retransmit_are_no_storm",
        "not those with SACK": "rule_4_3_duplicates_with_sack_are_no_storm"},
    "4.4": {
        "re-opened by a new SYN": "rule_4_4_a_new_syn_reopens_a_time_wait",
        "by a later timestamp": "rule_4_4_a_syn_below_the_old_numbers_with_a_later_timestamp_opens_anew",
        "our number lies above": "rule_4_4_our_new_number_lies_above_the_old_connections_last"},
    "4.5": {
        "TTL, DSCP, DF": "rule_4_5_the_ttl_falls_by_one_and_dscp_and_df_stay",
        "keep-alives before binding": "rule_4_5_a_keep_alive_before_binding_is_answered_by_us",
        "a SYN from a target": "rule_4_5_a_syn_from_a_target_on_one_of_our_ports_is_dropped_and_counted"},
    "4.6": {
        "reset or drop": "rule_4_6_a_stray_is_reset_or_dropped_as_its_service_says",
        "a SYN to no service": "rule_4_6_a_syn_to_no_service_is_refused",
        "rate-limited": "rule_4_6_resets_are_rate_limited",
        "after a restart": "rule_4_6_after_a_restart_both_ends_of_an_old_connection_are_reset"},
    "5.1": {
        "both directions": "rule_5_1_each_direction_is_changed_and_acknowledged_in_the_senders_numbers",
        "once over each byte": "rule_5_1_kernels_run_once_over_each_byte_however_often_it_comes",
        "in order": "rule_5_1_bytes_out_of_order_are_shown_in_order",
        "however it is cut": "rule_5_1_edits_are_applied_however_a_retransmission_is_cut",
        "many change points": "rule_5_1_many_change_points_are_kept_at_once",
        "what is held too": "rule_5_1_the_first_flight_is_shown_too"},
    "5.2": {
        "an ACK inside an edit": "rule_5_2_an_acknowledgement_inside_an_edit_maps_to_its_start",
        "a SACK edge inside an edit": "rule_5_2_an_edge_of_sack_inside_an_edit_maps_to_its_start",
        "beyond the MSS": "rule_5_2_a_segment_that_grows_beyond_the_mss_is_split",
        "wholly deleted": "rule_5_2_wholly_deleted_bytes_are_acknowledged_by_us",
        "a full log": "rule_5_2_a_full_log_is_counted_and_ends_the_connection_on_both_sides"},
    "5.3": {"select rewrites": "rule_5_3_a_select_kernel_rewrites_what_is_held"},
    "8.1": {
        "the inner packet is translated back": "rule_8_1_the_sender_is_told_of_its_own_packet",
        "the quoted number is in flight": "rule_8_1_the_quoted_number_has_to_be_in_flight",
        "the MTU is corrected": "rule_8_1_a_client_given_timestamps_that_the_target_lacks_costs_12_bytes_of_the_mtu",
        "before binding": "rule_8_1_a_hard_error_about_our_syn_makes_the_target_fail_at_once"},
    "9": {
        "first signal": "rule_9_after_the_first_signal_nothing_new_is_opened_and_what_is_open_goes_on",
        "second signal": "rule_9_the_second_signal_resets_both_sides_at_once",
        "mbufs": "rule_9_when_mbufs_run_short_new_connections_are_refused_first_and_those_open_go_on"},
}

PEERS = {
    "a zero-window SYN-ACK": "peers_the_window_of_the_syn_ack_is_never_zero",
    "the server speaks first, immediate mode": "peers_a_server_that_speaks_first_is_reached_without_a_word_of_the_client",
    "the server speaks first, timer": "peers_a_first_data_timer_falls_back_to_the_default_target",
    "the timer without a fall-back": "peers_a_first_data_timer_without_a_default_resets_the_client",
    "the late SYN": "peers_the_late_syn_is_retransmitted_with_back_off",
    "a sign of bad health": "peers_refusals_and_silence_of_a_target_are_counted_for_it",
    "the safe common part": "peers_what_is_promised_before_the_target_is_known_is_translated_when_it_declines",
    "SYN in TIME_WAIT": "peers_a_new_syn_on_a_connection_in_time_wait_reopens_it",
    "SYN while closing": "peers_a_new_syn_on_a_connection_that_is_closing_reopens_it",
    "RFC 1624, erratum 4782": "peers_a_checksum_around_zero_is_right_after_translation",
    "test_tcp_session_close_in": "peers_tcp_session_close_in",
    "test_tcp_session_close_out": "peers_tcp_session_close_out",
    "test_tcp_session_close_simultaneous": "peers_tcp_session_close_simultaneous",
    "half re-open from inside": "peers_tcp_session_half_reopen_in",
    "half re-open from outside": "peers_tcp_session_half_reopen_out",
    "open-retransmit": "peers_tcp_session_open_retransmit",
    "RST time-out": "peers_tcp_session_rst_time_out",
    "ports exhausted": "peers_ports_exhausted",
    "at the limits: mbufs": "peers_mbufs_exhausted_leaves_the_handshakes_to_retransmission",
    "at the limits: connections": "peers_connections_exhausted",
    "at the limits: held bytes": "peers_held_bytes_exhausted_leaves_the_payload_to_the_clients_retransmission",
    "a say in when and to whom": "peers_the_route_is_chosen_from_the_data_that_came",
    "acknowledgements for ever": "rule_4_3_an_ack_storm_is_counted_and_cut",
    "drain": "peers_draining_lets_those_that_are_open_end_by_themselves",
}
"""Cases of "what they learnt the hard way" and "what users ask for" that are a splice's; PROXY protocol, capture, many cores,
restart without a cut, health checks, metrics and floods are other issues'."""

SEGMENTS = {
    "simultaneous close": "rfc_9293_simultaneous_close",
    "half-close for hours": "rfc_9293_a_half_close_lasts_for_hours_and_then_goes_on",
    "FIN with data": "rfc_9293_a_fin_carries_data",
    "data after FIN": "rfc_9293_data_after_a_fin_is_for_the_end_point_to_judge_and_moves_nothing",
    "FIN before binding": "rfc_9293_a_fin_before_binding_is_answered_and_the_connection_ends",
    "RST before binding": "rfc_9293_an_exact_rst_before_binding_ends_it",
    "retransmitted FIN": "rfc_9293_a_retransmitted_fin_passes_each_time_and_counts_once",
    "TIME_WAIT": "rfc_9293_the_last_fin_again_in_time_wait_is_answered_by_the_end_that_waits",
    "its re-opening": "rfc_9293_time_wait_is_reopened_by_a_syn_with_a_higher_number",
    "keep-alives": "rfc_9293_keep_alives_after_binding_pass_and_are_answered_by_the_peer",
    "zero-window probes": "rfc_9293_zero_window_probes_pass_until_the_window_opens",
    "urgent data": "rfc_9293_urgent_data_passes_with_its_pointer",
}
"""What RFC 9293 has beside SPLICE.md."""


@pytest.fixture(scope="module")
def names():
    """Returns the names of all tests, without their `test_` (set)."""
    folder = pathlib.Path(__file__).parent
    return {name for file in folder.glob("test_*.py") for name in re.findall(r"^def test_(\w+)\(", file.read_text(), re.MULTILINE)}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_a_test_that_bears_its_number(names, rule):
    assert any(name.startswith(f"rule_{rule.replace('.', '_')}_") for name in names)


@pytest.mark.parametrize("rule", RULES)
def test_each_clause_of_a_rule_has_the_test_that_is_named_for_it(names, rule):
    assert {clause: test for clause, test in CLAUSES[rule].items() if test not in names} == {}


@pytest.mark.parametrize("cases", [PEERS, SEGMENTS], ids=["peers", "rfc_9293"])
def test_each_case_has_the_test_that_is_named_for_it(names, cases):
    assert {case: test for case, test in cases.items() if test not in names} == {}


def test_the_clauses_are_those_of_all_rules():
    assert tuple(CLAUSES) == RULES
