/* What the engine asks of DPDK. This file is read twice: by the compiler, and as the declarations of the cffi
 * module `pipeline._dpdk` (lines that start with # are left out there).
 *
 * Every number is an int64_t, so that njit code can call a function by its symbol and Python passes plain ints.
 * A result below zero is -errno; `shim_error_text` turns it into words. Addresses fit, since user space ends
 * below 2^63. */
#ifndef DPDK_SHIM_H
#define DPDK_SHIM_H
#include <stdint.h>
#endif

struct shim_statistics {
    int64_t received_packets, sent_packets, received_octets, sent_octets;
    int64_t missed, receive_errors, send_errors, no_mbuf;
};

struct shim_information {
    int64_t receive_queues, transmit_queues;              /* most the device has */
    int64_t receive_offloads, transmit_offloads;          /* RTE_ETH_RX_OFFLOAD_*, RTE_ETH_TX_OFFLOAD_* */
    int64_t rss_tcp, rss_table, rss_key;                  /* hashes TCP over IPv4; entries of the table; octets of the key */
    int64_t least_mtu, most_mtu;
    int64_t rxd_least, rxd_most, rxd_multiple;            /* descriptors of a receive queue */
    int64_t txd_least, txd_most, txd_multiple;
    int64_t socket;                                       /* NUMA node, -1 where the device has none */
};

struct shim_pool {
    int64_t base, length;                                 /* the memzone: first address, octets */
    int64_t stride;                                       /* octets from one mbuf to the next, within a page */
    int64_t mbufs;                                        /* how many were made */
};

/* Called by njit code; see kernels/native.py. */
int64_t shim_receive(int64_t port, int64_t queue, int64_t mbufs, int64_t limit);
int64_t shim_transmit(int64_t port, int64_t queue, int64_t mbufs, int64_t count);
int64_t shim_allocate(int64_t pool, int64_t mbufs, int64_t count);
int64_t shim_release(int64_t mbufs, int64_t count);
int64_t shim_hand_over(int64_t ring, int64_t mbufs, int64_t count);
int64_t shim_take_over(int64_t ring, int64_t mbufs, int64_t limit);
int64_t shim_waiting(int64_t ring);

/* Environment (EAL). */
int64_t shim_environment_start(int64_t count, char **arguments);
int64_t shim_environment_stop(void);
const char *shim_runtime_folder(void);
int64_t shim_has_hugepages(void);
int64_t shim_hertz(void);
int64_t shim_thread_register(void);
int64_t shim_thread_unregister(void);

/* Errors and the log. While recording, DPDK's log goes to a buffer instead of standard error. */
const char *shim_error_text(int64_t code);
int64_t shim_log_start(int64_t level);
int64_t shim_log_level(void);
int64_t shim_log_record(int64_t on);
int64_t shim_log_take(char *text, int64_t room);

/* Pool of mbufs on one virtually contiguous memzone. */
int64_t shim_pool_create(const char *name, int64_t mbufs, int64_t room, int64_t cache, int64_t socket, int64_t dense);
int64_t shim_pool_describe(int64_t pool, struct shim_pool *description);
int64_t shim_pool_available(int64_t pool);
int64_t shim_pool_free(int64_t pool);

/* Ports. */
int64_t shim_port_probe(const char *devargs);
int64_t shim_port_find(const char *name);
int64_t shim_port_configure(int64_t port, int64_t queues, int64_t mtu, int64_t rss, const uint8_t *key, int64_t length);
/* pools: the address of the pool of each queue. */
int64_t shim_port_queues(int64_t port, const int64_t *pools, int64_t queues, int64_t rxd, int64_t txd);
int64_t shim_port_set_mtu(int64_t port, int64_t mtu);
int64_t shim_port_mtu(int64_t port);
int64_t shim_port_set_mac(int64_t port, int64_t mac);
int64_t shim_port_mac(int64_t port);
int64_t shim_port_promiscuous(int64_t port, int64_t on);
int64_t shim_port_start(int64_t port);
int64_t shim_port_stop(int64_t port);
int64_t shim_port_close(int64_t port);
int64_t shim_port_link_up(int64_t port);
int64_t shim_port_link_speed(int64_t port);
int64_t shim_port_statistics(int64_t port, struct shim_statistics *statistics);
int64_t shim_port_information(int64_t port, struct shim_information *information);
const char *shim_port_driver(int64_t port);

/* Rings of one producer and one consumer, and ports made of two of them (net_ring): what one sends, the other receives. */
int64_t shim_ring_create(const char *name, int64_t size, int64_t socket);
int64_t shim_ring_free(int64_t ring);
int64_t shim_ring_port(const char *name, int64_t receive_ring, int64_t transmit_ring, int64_t socket);
