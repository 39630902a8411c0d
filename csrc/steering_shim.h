/* What brings a packet to one receive queue or another: RSS, and rules by rte_flow. Read as dpdk_shim.h is, and with its
 * conventions. */
#ifndef STEERING_SHIM_H
#define STEERING_SHIM_H
#include <stdint.h>
#endif

/* Fields that a rule of TCP over IPv4 can look at; io/flow_rules.py numbers them too. */
enum shim_flow_field { SHIM_FLOW_DESTINATION_PORT, SHIM_FLOW_DESTINATION_ADDRESS };

/* RSS. `entries` is the size of the redirection table, which shim_port_information tells. */
int64_t shim_rss_spread(int64_t port, int64_t entries, int64_t queues);
int64_t shim_rss_table(int64_t port, int64_t entries, int64_t *table);
int64_t shim_rss_key(int64_t port, uint8_t *key, int64_t room);
int64_t shim_rss_set_key(int64_t port, const uint8_t *key, int64_t length);
int64_t shim_softrss(const uint8_t *key, int64_t source, int64_t destination, int64_t source_port,
                     int64_t destination_port);

/* Rules: what has `value` in the field under `mask` goes to `queue`. `said` takes the device's words on a refusal. */
int64_t shim_flow_validate(int64_t port, int64_t field, int64_t value, int64_t mask, int64_t queue, char *said,
                           int64_t room);
int64_t shim_flow_create(int64_t port, int64_t field, int64_t value, int64_t mask, int64_t queue, char *said,
                         int64_t room);
int64_t shim_flow_destroy(int64_t port, int64_t rule, char *said, int64_t room);
