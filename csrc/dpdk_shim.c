/* The shim over DPDK 22.11: see dpdk_shim.h. One call of DPDK a function where that is possible. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>

#include "dpdk_shim.h"

/* ---- called by njit code ---- */

int64_t shim_receive(int64_t port, int64_t queue, int64_t mbufs, int64_t limit)
{
    return rte_eth_rx_burst((uint16_t)port, (uint16_t)queue, (struct rte_mbuf **)mbufs, (uint16_t)limit);
}

int64_t shim_transmit(int64_t port, int64_t queue, int64_t mbufs, int64_t count)
{
    return rte_eth_tx_burst((uint16_t)port, (uint16_t)queue, (struct rte_mbuf **)mbufs, (uint16_t)count);
}

int64_t shim_allocate(int64_t pool, int64_t mbufs, int64_t count)
{
    int failed = rte_pktmbuf_alloc_bulk((struct rte_mempool *)pool, (struct rte_mbuf **)mbufs, (unsigned)count);
    return failed ? 0 : count;
}

int64_t shim_release(int64_t mbufs, int64_t count)
{
    rte_pktmbuf_free_bulk((struct rte_mbuf **)mbufs, (unsigned)count);
    return 0;
}

int64_t shim_hand_over(int64_t ring, int64_t mbufs, int64_t count)
{
    return rte_ring_sp_enqueue_burst((struct rte_ring *)ring, (void **)mbufs, (unsigned)count, NULL);
}

int64_t shim_take_over(int64_t ring, int64_t mbufs, int64_t limit)
{
    return rte_ring_sc_dequeue_burst((struct rte_ring *)ring, (void **)mbufs, (unsigned)limit, NULL);
}

int64_t shim_waiting(int64_t ring)
{
    return rte_ring_count((struct rte_ring *)ring);
}

/* ---- the log ---- */

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_text[8192];
static size_t log_length;
static int log_recording;

static ssize_t log_write(void *cookie, const char *text, size_t length)
{
    (void)cookie;
    pthread_mutex_lock(&log_lock);
    if (log_recording) {
        size_t room = sizeof(log_text) - log_length;
        size_t kept = length < room ? length : room;
        memcpy(log_text + log_length, text, kept);
        log_length += kept;
    } else {
        fwrite(text, 1, length, stderr);
    }
    pthread_mutex_unlock(&log_lock);
    return (ssize_t)length;
}

int64_t shim_log_start(int64_t level)
{
    static FILE *stream;

    if (stream == NULL) {
        stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = log_write});
        if (stream == NULL)
            return -errno;
        setvbuf(stream, NULL, _IOLBF, 1024);
        rte_openlog_stream(stream);
    }
    rte_log_set_global_level((uint32_t)level);
    return 0;
}

int64_t shim_log_level(void)
{
    return rte_log_get_global_level();
}

int64_t shim_log_record(int64_t on)
{
    pthread_mutex_lock(&log_lock);
    log_recording = on != 0;
    pthread_mutex_unlock(&log_lock);
    return 0;
}

int64_t shim_log_take(char *text, int64_t room)
{
    pthread_mutex_lock(&log_lock);
    size_t length = log_length < (size_t)room ? log_length : (size_t)room;
    memcpy(text, log_text, length);
    log_length = 0;
    pthread_mutex_unlock(&log_lock);
    return (int64_t)length;
}

const char *shim_error_text(int64_t code)
{
    return rte_strerror((int)(code < 0 ? -code : code));
}

/* ---- environment ---- */

int64_t shim_environment_start(int64_t count, char **arguments)
{
    return rte_eal_init((int)count, arguments) < 0 ? -(rte_errno ? rte_errno : EINVAL) : 0;
}

int64_t shim_environment_stop(void)
{
    return rte_eal_cleanup();
}

const char *shim_runtime_folder(void)
{
    return rte_eal_get_runtime_dir();
}

int64_t shim_has_hugepages(void)
{
    return rte_eal_has_hugepages();
}

int64_t shim_hertz(void)
{
    return (int64_t)rte_get_tsc_hz();
}

int64_t shim_thread_register(void)
{
    return rte_thread_register() < 0 ? -rte_errno : (int64_t)rte_lcore_id();
}

int64_t shim_thread_unregister(void)
{
    rte_thread_unregister();
    return 0;
}

/* ---- pool ---- */

static void free_memzone(struct rte_mempool_memhdr *chunk, void *memzone)
{
    (void)chunk;
    rte_memzone_free(memzone);
}

/* Fills `pool` from one memzone; returns how many mbufs it made. `dense` objects cross pages. */
static int64_t populate(struct rte_mempool *pool, int64_t mbufs, int64_t socket)
{
    char name[RTE_MEMZONE_NAMESIZE];
    size_t page, chunk, alignment;

    int failed = rte_mempool_get_page_size(pool, &page);
    if (failed)
        return failed;
    ssize_t length = rte_mempool_op_calc_mem_size_default(pool, (uint32_t)mbufs, page ? rte_bsf64(page) : 0,
                                                          &chunk, &alignment);
    if (length < 0)
        return length;
    snprintf(name, sizeof(name), "%s_memory", pool->name);
    const struct rte_memzone *zone = rte_memzone_reserve_aligned(name, (size_t)length, (int)socket, 0,
                                                                 RTE_MAX(alignment, (size_t)4096));
    if (zone == NULL)
        return -rte_errno;
    int made = rte_mempool_populate_virt(pool, zone->addr, (size_t)length, page, free_memzone,
                                         (void *)(uintptr_t)zone);
    if (made < 0 && rte_memzone_lookup(name) == zone)
        rte_memzone_free(zone);
    return made;
}

int64_t shim_pool_create(const char *name, int64_t mbufs, int64_t room, int64_t cache, int64_t socket, int64_t dense)
{
    struct rte_pktmbuf_pool_private layout = {.mbuf_data_room_size = (uint16_t)room};
    struct rte_mempool *pool = rte_mempool_create_empty(
        name, (unsigned)mbufs, (unsigned)(sizeof(struct rte_mbuf) + room), (unsigned)cache, sizeof(layout),
        (int)socket, dense ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0);

    if (pool == NULL)
        return -rte_errno;
    /* The plain ring: `populate` asks for memory as its operations lay it out. */
    int64_t made = rte_mempool_set_ops_byname(pool, "ring_mp_mc", NULL);
    if (made == 0) {
        rte_pktmbuf_pool_init(pool, &layout);
        made = populate(pool, mbufs, socket);
    }
    if (made != mbufs) {
        rte_mempool_free(pool);
        return made < 0 ? made : -ENOMEM;
    }
    rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
    return (int64_t)pool;
}

int64_t shim_pool_describe(int64_t address, struct shim_pool *description)
{
    struct rte_mempool *pool = (struct rte_mempool *)address;
    const struct rte_memzone *zone = STAILQ_FIRST(&pool->mem_list)->opaque;

    description->base = (int64_t)zone->addr;
    description->length = (int64_t)zone->len;
    description->stride = pool->header_size + pool->elt_size + pool->trailer_size;
    description->mbufs = pool->populated_size;
    return 0;
}

int64_t shim_pool_available(int64_t pool)
{
    return rte_mempool_avail_count((struct rte_mempool *)pool);
}

int64_t shim_pool_free(int64_t pool)
{
    rte_mempool_free((struct rte_mempool *)pool);
    return 0;
}

/* ---- ports ---- */

int64_t shim_port_find(const char *name)
{
    uint16_t port;
    int failed = rte_eth_dev_get_port_by_name(name, &port);
    return failed ? failed : port;
}

int64_t shim_port_probe(const char *devargs)
{
    char name[RTE_ETH_NAME_MAX_LEN];
    int failed = rte_dev_probe(devargs);

    if (failed) /* -EFAULT: no bus knows a driver of that name */
        return failed == -EFAULT ? -ENODEV : failed;
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(devargs, ","), devargs);
    return shim_port_find(name);
}

int64_t shim_port_configure(int64_t port, int64_t queues, int64_t mtu, int64_t rss, const uint8_t *key, int64_t length)
{
    struct rte_eth_dev_info information;
    struct rte_eth_conf configuration = {0};
    int failed = rte_eth_dev_info_get((uint16_t)port, &information);

    if (failed)
        return failed;
    configuration.rxmode.mtu = (uint32_t)mtu;
    configuration.txmode.offloads = information.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    if (mtu + RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + 2 * RTE_VLAN_HLEN > RTE_MBUF_DEFAULT_DATAROOM)
        configuration.rxmode.offloads = information.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER;
    if (rss) {
        configuration.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        configuration.rx_adv_conf.rss_conf = (struct rte_eth_rss_conf){
            .rss_key = (uint8_t *)(uintptr_t)key, .rss_key_len = (uint8_t)length,
            .rss_hf = information.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP),
        };
    }
    return rte_eth_dev_configure((uint16_t)port, (uint16_t)queues, (uint16_t)queues, &configuration);
}

int64_t shim_port_queues(int64_t port, const int64_t *pools, int64_t queues, int64_t rxd, int64_t txd)
{
    unsigned socket = (unsigned)rte_eth_dev_socket_id((uint16_t)port);
    int failed = 0;

    for (int64_t queue = 0; queue < queues && !failed; queue++) {
        failed = rte_eth_rx_queue_setup((uint16_t)port, (uint16_t)queue, (uint16_t)rxd, socket, NULL,
                                        (struct rte_mempool *)pools[queue]);
        if (!failed)
            failed = rte_eth_tx_queue_setup((uint16_t)port, (uint16_t)queue, (uint16_t)txd, socket, NULL);
    }
    return failed;
}

int64_t shim_port_set_mtu(int64_t port, int64_t mtu)
{
    return rte_eth_dev_set_mtu((uint16_t)port, (uint16_t)mtu);
}

int64_t shim_port_mtu(int64_t port)
{
    uint16_t mtu;
    int failed = rte_eth_dev_get_mtu((uint16_t)port, &mtu);
    return failed ? failed : mtu;
}

int64_t shim_port_set_mac(int64_t port, int64_t mac)
{
    struct rte_ether_addr address;

    for (int byte = 0; byte < RTE_ETHER_ADDR_LEN; byte++)
        address.addr_bytes[byte] = (uint8_t)(mac >> (40 - 8 * byte));
    return rte_eth_dev_default_mac_addr_set((uint16_t)port, &address);
}

int64_t shim_port_mac(int64_t port)
{
    struct rte_ether_addr address;
    int64_t mac = 0;
    int failed = rte_eth_macaddr_get((uint16_t)port, &address);

    if (failed)
        return failed;
    for (int byte = 0; byte < RTE_ETHER_ADDR_LEN; byte++)
        mac = mac << 8 | address.addr_bytes[byte];
    return mac;
}

int64_t shim_port_promiscuous(int64_t port, int64_t on)
{
    return on ? rte_eth_promiscuous_enable((uint16_t)port) : rte_eth_promiscuous_disable((uint16_t)port);
}

int64_t shim_port_start(int64_t port)
{
    return rte_eth_dev_start((uint16_t)port);
}

int64_t shim_port_stop(int64_t port)
{
    return rte_eth_dev_stop((uint16_t)port);
}

int64_t shim_port_close(int64_t port)
{
    struct rte_eth_dev_info information;
    int failed = rte_eth_dev_info_get((uint16_t)port, &information);

    if (failed)
        return failed;
    failed = rte_eth_dev_close((uint16_t)port);
    int kept = rte_dev_remove(information.device);
    return failed ? failed : kept;
}

static int64_t link_of(int64_t port, struct rte_eth_link *link)
{
    return rte_eth_link_get_nowait((uint16_t)port, link);
}

int64_t shim_port_link_up(int64_t port)
{
    struct rte_eth_link link;
    int64_t failed = link_of(port, &link);
    return failed ? failed : link.link_status == RTE_ETH_LINK_UP;
}

int64_t shim_port_link_speed(int64_t port)
{
    struct rte_eth_link link;
    int64_t failed = link_of(port, &link);
    return failed ? failed : (int64_t)link.link_speed;
}

int64_t shim_port_statistics(int64_t port, struct shim_statistics *statistics)
{
    struct rte_eth_stats counted;
    int failed = rte_eth_stats_get((uint16_t)port, &counted);

    if (failed)
        return failed;
    *statistics = (struct shim_statistics){
        .received_packets = (int64_t)counted.ipackets, .sent_packets = (int64_t)counted.opackets,
        .received_octets = (int64_t)counted.ibytes, .sent_octets = (int64_t)counted.obytes,
        .missed = (int64_t)counted.imissed, .receive_errors = (int64_t)counted.ierrors,
        .send_errors = (int64_t)counted.oerrors, .no_mbuf = (int64_t)counted.rx_nombuf,
    };
    return 0;
}

int64_t shim_port_information(int64_t port, struct shim_information *information)
{
    struct rte_eth_dev_info device;
    int failed = rte_eth_dev_info_get((uint16_t)port, &device);

    if (failed)
        return failed;
    *information = (struct shim_information){
        .receive_queues = device.max_rx_queues, .transmit_queues = device.max_tx_queues,
        .receive_offloads = (int64_t)device.rx_offload_capa, .transmit_offloads = (int64_t)device.tx_offload_capa,
        .rss_tcp = (device.flow_type_rss_offloads & RTE_ETH_RSS_NONFRAG_IPV4_TCP) != 0,
        .rss_table = device.reta_size, .rss_key = device.hash_key_size,
        .least_mtu = device.min_mtu, .most_mtu = device.max_mtu,
        .rxd_least = device.rx_desc_lim.nb_min, .rxd_most = device.rx_desc_lim.nb_max,
        .rxd_multiple = device.rx_desc_lim.nb_align,
        .txd_least = device.tx_desc_lim.nb_min, .txd_most = device.tx_desc_lim.nb_max,
        .txd_multiple = device.tx_desc_lim.nb_align,
        .socket = rte_eth_dev_socket_id((uint16_t)port),
    };
    return 0;
}

const char *shim_port_driver(int64_t port)
{
    struct rte_eth_dev_info device;
    return rte_eth_dev_info_get((uint16_t)port, &device) ? "" : device.driver_name;
}

/* ---- rings ---- */

int64_t shim_ring_create(const char *name, int64_t size, int64_t socket)
{
    struct rte_ring *ring = rte_ring_create(name, (unsigned)size, (int)socket, RING_F_SP_ENQ | RING_F_SC_DEQ);
    return ring ? (int64_t)ring : -rte_errno;
}

int64_t shim_ring_free(int64_t ring)
{
    rte_ring_free((struct rte_ring *)ring);
    return 0;
}

int64_t shim_ring_port(const char *name, int64_t receive_ring, int64_t transmit_ring, int64_t socket)
{
    struct rte_ring *receive[] = {(struct rte_ring *)receive_ring}, *transmit[] = {(struct rte_ring *)transmit_ring};
    int port = rte_eth_from_rings(name, receive, 1, transmit, 1, (unsigned)socket);
    return port < 0 ? -(rte_errno ? rte_errno : EINVAL) : port;
}
