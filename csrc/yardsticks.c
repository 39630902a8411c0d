/* rte_hash and rte_timer under a stop-watch: see yardsticks.h. */
#include <errno.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_lcore.h>
#include <rte_timer.h>

#include "yardsticks.h"

#define LONGEST_KEY 64

/* The time-stamp counter, with nothing before it still under way and nothing after it begun. */
static inline int64_t ordered_ticks(void)
{
#ifdef RTE_ARCH_X86
    __builtin_ia32_lfence();
    int64_t now = (int64_t)rte_rdtsc();
    __builtin_ia32_lfence();
    return now;
#else
    return (int64_t)rte_rdtsc_precise();
#endif
}

/* ---- rte_hash ---- */

int64_t yardstick_hash_create(const char *name, int64_t entries, int64_t length)
{
    struct rte_hash_parameters wanted = {
        .name = name, .entries = (uint32_t)entries, .key_len = (uint32_t)length, .hash_func = rte_hash_crc,
        .socket_id = (int)rte_socket_id(),
    };

    if (length < 1 || length > LONGEST_KEY)
        return -EINVAL;
    struct rte_hash *table = rte_hash_create(&wanted);
    return table ? (int64_t)table : -(rte_errno ? rte_errno : EINVAL);
}

int64_t yardstick_hash_free(int64_t table)
{
    rte_hash_free((struct rte_hash *)table);
    return 0;
}

int64_t yardstick_hash_insert(int64_t table, const char *keys, int64_t length, int64_t count, int64_t burst, int64_t *taken)
{
    const struct rte_hash *hash = (const struct rte_hash *)table;

    for (int64_t start = 0; start < count; start += burst) {
        int64_t before = ordered_ticks();
        for (int64_t place = start; place < count && place < start + burst; place++) {
            int failed = rte_hash_add_key_data(hash, keys + place * length, (void *)place);
            if (failed)
                return failed;
        }
        *taken++ = ordered_ticks() - before;
    }
    return 0;
}

int64_t yardstick_hash_delete(int64_t table, const char *keys, int64_t length, int64_t count, int64_t burst, int64_t *taken)
{
    const struct rte_hash *hash = (const struct rte_hash *)table;

    for (int64_t start = 0; start < count; start += burst) {
        int64_t before = ordered_ticks();
        for (int64_t place = start; place < count && place < start + burst; place++) {
            int position = rte_hash_del_key(hash, keys + place * length);
            if (position < 0)
                return position;
        }
        *taken++ = ordered_ticks() - before;
    }
    return 0;
}

int64_t yardstick_hash_look_up(int64_t table, const char *keys, int64_t length, int64_t count, int64_t burst, int64_t *taken,
                               int64_t *found)
{
    const struct rte_hash *hash = (const struct rte_hash *)table;
    char copied[RTE_HASH_LOOKUP_BULK_MAX * LONGEST_KEY] __rte_cache_aligned;
    const void *pointers[RTE_HASH_LOOKUP_BULK_MAX];
    void *data[RTE_HASH_LOOKUP_BULK_MAX];

    *found = 0;
    if (burst < 1 || burst > RTE_HASH_LOOKUP_BULK_MAX || length > LONGEST_KEY)
        return -EINVAL;
    for (int64_t row = 0; row < burst; row++)
        pointers[row] = copied + row * length;
    for (int64_t place = 0; place + burst <= count; place += burst) {
        uint64_t hits = 0;
        memcpy(copied, keys + place * length, (size_t)(burst * length));
        int64_t before = ordered_ticks();
        rte_hash_lookup_bulk_data(hash, pointers, (uint32_t)burst, &hits, data);
        *taken++ = ordered_ticks() - before;
        *found += __builtin_popcountll(hits);
    }
    return 0;
}

/* ---- rte_timer ---- */

static int64_t timers_expired;

static void count_expired(struct rte_timer *timer, void *argument)
{
    (void)timer;
    (void)argument;
    timers_expired++;
}

int64_t yardstick_timer_size(void)
{
    return sizeof(struct rte_timer);
}

int64_t yardstick_timer_start(void)
{
    int failed = rte_timer_subsystem_init();
    return failed == -EALREADY ? 0 : failed;
}

int64_t yardstick_timer_end(void)
{
    rte_timer_subsystem_finalize();
    return 0;
}

int64_t yardstick_timer_schedule(char *timers, const int64_t *order, const int64_t *delay, int64_t count)
{
    struct rte_timer *timer = (struct rte_timer *)timers;
    unsigned core = rte_lcore_id();
    int64_t start = ordered_ticks();

    for (int64_t place = 0; place < count; place++)
        if (rte_timer_reset(&timer[order[place]], (uint64_t)delay[place], SINGLE, core, count_expired, NULL))
            return -EBUSY;
    return ordered_ticks() - start;
}

int64_t yardstick_timer_cancel(char *timers, const int64_t *order, int64_t count)
{
    struct rte_timer *timer = (struct rte_timer *)timers;
    int64_t start = ordered_ticks();

    for (int64_t place = 0; place < count; place++)
        if (rte_timer_stop(&timer[order[place]]))
            return -EBUSY;
    return ordered_ticks() - start;
}

int64_t yardstick_timer_expire(int64_t *expired)
{
    timers_expired = 0;
    int64_t start = ordered_ticks();
    int failed = rte_timer_manage();
    int64_t taken = ordered_ticks() - start;
    *expired = timers_expired;
    return failed ? failed : taken;
}

int64_t yardstick_timer_tick(int64_t times)
{
    int64_t start = ordered_ticks();

    for (int64_t time = 0; time < times; time++)
        rte_timer_manage();
    return ordered_ticks() - start;
}
