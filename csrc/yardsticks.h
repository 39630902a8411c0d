/* DPDK's own flow table and timers under a stop-watch, beside which perf/ sets ours. Read twice, like dpdk_shim.h.
 *
 * Times are TSC ticks; a result below zero is -errno. What copies the keys of the next burst of look-ups stays outside, as it
 * does for ours. */
#ifndef YARDSTICKS_H
#define YARDSTICKS_H
#include <stdint.h>
#endif

/* rte_hash with rte_hash_crc. `count` keys lie `length` octets each one behind the other, and are dealt with in bursts, of
 * at most 64 for a look-up; `taken` gets the ticks of each burst. */
int64_t yardstick_hash_create(const char *name, int64_t entries, int64_t length);
int64_t yardstick_hash_free(int64_t table);
int64_t yardstick_hash_insert(int64_t table, const char *keys, int64_t length, int64_t count, int64_t burst, int64_t *taken);
int64_t yardstick_hash_delete(int64_t table, const char *keys, int64_t length, int64_t count, int64_t burst, int64_t *taken);
int64_t yardstick_hash_look_up(int64_t table, const char *keys, int64_t length, int64_t count, int64_t burst, int64_t *taken,
                               int64_t *found);

/* rte_timer; `timers` has yardstick_timer_size() octets a timer, and must be zeroed at first. Delays are ticks. */
int64_t yardstick_timer_size(void);
int64_t yardstick_timer_start(void);
int64_t yardstick_timer_end(void);
int64_t yardstick_timer_schedule(char *timers, const int64_t *order, const int64_t *delay, int64_t count);
int64_t yardstick_timer_cancel(char *timers, const int64_t *order, int64_t count);
int64_t yardstick_timer_expire(int64_t *expired);
int64_t yardstick_timer_tick(int64_t times);
