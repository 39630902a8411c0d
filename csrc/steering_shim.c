/* RSS and rte_flow over DPDK 22.11: see steering_shim.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_thash.h>

#include "steering_shim.h"

/* ---- RSS ---- */

#define MOST_GROUPS 64

struct redirection {
    struct rte_eth_rss_reta_entry64 groups[MOST_GROUPS];
};

/* Asks for every entry of a table; false if it is larger than any known. */
static int mark_entries(struct redirection *table, int64_t entries)
{
    if (entries > MOST_GROUPS * RTE_ETH_RETA_GROUP_SIZE)
        return 0;
    memset(table, 0, sizeof(*table));
    for (int64_t entry = 0; entry < entries; entry++)
        table->groups[entry / RTE_ETH_RETA_GROUP_SIZE].mask |= UINT64_C(1) << (entry % RTE_ETH_RETA_GROUP_SIZE);
    return 1;
}

int64_t shim_rss_spread(int64_t port, int64_t entries, int64_t queues)
{
    struct redirection table;

    if (!mark_entries(&table, entries))
        return -E2BIG;
    for (int64_t entry = 0; entry < entries; entry++)
        table.groups[entry / RTE_ETH_RETA_GROUP_SIZE].reta[entry % RTE_ETH_RETA_GROUP_SIZE] =
            (uint16_t)(entry % queues);
    return rte_eth_dev_rss_reta_update((uint16_t)port, table.groups, (uint16_t)entries);
}

int64_t shim_rss_table(int64_t port, int64_t entries, int64_t *queues)
{
    struct redirection table;

    if (!mark_entries(&table, entries))
        return -E2BIG;
    int failed = rte_eth_dev_rss_reta_query((uint16_t)port, table.groups, (uint16_t)entries);
    for (int64_t entry = 0; entry < entries && !failed; entry++)
        queues[entry] = table.groups[entry / RTE_ETH_RETA_GROUP_SIZE].reta[entry % RTE_ETH_RETA_GROUP_SIZE];
    return failed;
}

int64_t shim_rss_key(int64_t port, uint8_t *key, int64_t room)
{
    struct rte_eth_rss_conf configuration = {.rss_key = key, .rss_key_len = (uint8_t)room};
    int failed = rte_eth_dev_rss_hash_conf_get((uint16_t)port, &configuration);
    return failed ? failed : configuration.rss_key_len;
}

int64_t shim_rss_set_key(int64_t port, const uint8_t *key, int64_t length)
{
    struct rte_eth_rss_conf configuration = {0};
    int failed = rte_eth_dev_rss_hash_conf_get((uint16_t)port, &configuration);

    if (failed)
        return failed;
    configuration.rss_key = (uint8_t *)(uintptr_t)key;
    configuration.rss_key_len = (uint8_t)length;
    return rte_eth_dev_rss_hash_update((uint16_t)port, &configuration);
}

int64_t shim_softrss(const uint8_t *key, int64_t source, int64_t destination, int64_t source_port,
                     int64_t destination_port)
{
    uint32_t words[] = {(uint32_t)source, (uint32_t)destination, (uint32_t)(source_port << 16 | destination_port)};
    return rte_softrss(words, RTE_DIM(words), key);
}

/* ---- rules ---- */

/* A rule as rte_flow takes it; `pattern` and `actions` point at the other members. */
struct rule {
    struct rte_flow_attr attributes;
    struct rte_flow_item_ipv4 address, address_mask;
    struct rte_flow_item_tcp ports, ports_mask;
    struct rte_flow_action_queue queue;
    struct rte_flow_item pattern[4];
    struct rte_flow_action actions[2];
};

static void write_rule(struct rule *rule, int64_t field, int64_t value, int64_t mask, int64_t queue)
{
    memset(rule, 0, sizeof(*rule));
    rule->attributes.ingress = 1;
    rule->queue.index = (uint16_t)queue;
    rule->pattern[0].type = RTE_FLOW_ITEM_TYPE_ETH;
    rule->pattern[1].type = RTE_FLOW_ITEM_TYPE_IPV4;
    rule->pattern[2].type = RTE_FLOW_ITEM_TYPE_TCP;
    rule->pattern[3].type = RTE_FLOW_ITEM_TYPE_END;
    if (field == SHIM_FLOW_DESTINATION_ADDRESS) {
        rule->address.hdr.dst_addr = rte_cpu_to_be_32((uint32_t)value);
        rule->address_mask.hdr.dst_addr = rte_cpu_to_be_32((uint32_t)mask);
        rule->pattern[1].spec = &rule->address;
        rule->pattern[1].mask = &rule->address_mask;
    } else {
        rule->ports.hdr.dst_port = rte_cpu_to_be_16((uint16_t)value);
        rule->ports_mask.hdr.dst_port = rte_cpu_to_be_16((uint16_t)mask);
        rule->pattern[2].spec = &rule->ports;
        rule->pattern[2].mask = &rule->ports_mask;
    }
    rule->actions[0].type = RTE_FLOW_ACTION_TYPE_QUEUE;
    rule->actions[0].conf = &rule->queue;
    rule->actions[1].type = RTE_FLOW_ACTION_TYPE_END;
}

static int64_t refusal(int64_t failed, const struct rte_flow_error *error, char *said, int64_t room)
{
    snprintf(said, (size_t)room, "%s", error->message ? error->message : "");
    return failed < 0 ? failed : -EINVAL;
}

int64_t shim_flow_validate(int64_t port, int64_t field, int64_t value, int64_t mask, int64_t queue, char *said,
                           int64_t room)
{
    struct rte_flow_error error = {0};
    struct rule rule;

    write_rule(&rule, field, value, mask, queue);
    int failed = rte_flow_validate((uint16_t)port, &rule.attributes, rule.pattern, rule.actions, &error);
    return failed ? refusal(failed, &error, said, room) : 0;
}

int64_t shim_flow_create(int64_t port, int64_t field, int64_t value, int64_t mask, int64_t queue, char *said,
                         int64_t room)
{
    struct rte_flow_error error = {0};
    struct rule rule;

    write_rule(&rule, field, value, mask, queue);
    struct rte_flow *made = rte_flow_create((uint16_t)port, &rule.attributes, rule.pattern, rule.actions, &error);
    return made ? (int64_t)made : refusal(-rte_errno, &error, said, room);
}

int64_t shim_flow_destroy(int64_t port, int64_t rule, char *said, int64_t room)
{
    struct rte_flow_error error = {0};
    int failed = rte_flow_destroy((uint16_t)port, (struct rte_flow *)rule, &error);
    return failed ? refusal(failed, &error, said, room) : 0;
}
