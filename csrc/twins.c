/* C twins of the kernels of the same names: see twins.h. Each does to the columns just what the Python does, and copies
 * their pointers into restrict locals first: without that the look-up took 22 ns instead of 14. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE4_2__
#include <immintrin.h>
#endif

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)
#define column(name) int64_t *restrict name = context->name
#define OK (-1)

static inline uint16_t swap16(uint16_t value)
{
    return __builtin_bswap16(value);
}

static inline uint32_t swap32(uint32_t value)
{
    return __builtin_bswap32(value);
}

static inline uint32_t load32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline void store32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

/* ---- checksums (RFC 1071, RFC 1624), as kernels/checksum.py ---- */

static inline uint16_t fold(uint64_t total)
{
    total = (total & 0xFFFF) + (total >> 16 & 0xFFFF) + (total >> 32);
    total = (total & 0xFFFF) + (total >> 16);
    return (uint16_t)((total & 0xFFFF) + (total >> 16));
}

static inline uint64_t difference(uint32_t old, uint32_t new)
{
    return 0xFFFFFFFFull - old + new;
}

static inline uint16_t update(uint16_t checksum, uint64_t differences)
{
    return (uint16_t)(0xFFFF - fold(0xFFFFull - checksum + differences));
}

static uint64_t sum_octets(const uint8_t *at, int64_t length)
{
    uint64_t total = 0;

    for (; length >= 4; length -= 4, at += 4)
        total += load32(at);
    if (length & 2) {
        total += (uint64_t)at[0] | (uint64_t)at[1] << 8;
        at += 2;
    }
    if (length & 1)
        total += *at;
    return total;
}

/* ---- parse ---- */

struct frame {
    const struct mbuf *mbuf;
    int64_t start, network, transport;  /* offsets in the arena */
    int64_t held, length;               /* octets in the first mbuf, and of all of the frame */
    int64_t ethertype;
};

static inline int is_in_buffer(const struct context *context, const struct mbuf *mbuf)
{
    int64_t start = (int64_t)mbuf->buffer_address - context->base + mbuf->data_off;

    return mbuf->data_off + mbuf->data_length <= mbuf->buffer_length && start >= 0
           && start + mbuf->data_length <= context->octet_count;
}

static int chain_is_whole(const struct context *context, const struct mbuf *first)
{
    const struct mbuf *mbuf = first;
    uint64_t total = 0;
    int parts = 0;

    while (parts < MOST_SEGMENTS) {
        if (!is_in_buffer(context, mbuf))
            return 0;
        total += mbuf->data_length;
        parts++;
        if (mbuf->next == 0)
            break;
        int64_t next = (int64_t)mbuf->next - context->base;
        if (next < 0 || next > context->octet_count - (int64_t)sizeof *mbuf)
            return 0;
        mbuf = (const struct mbuf *)(context->octets + next);
    }
    return parts == first->segments && total == first->packet_length;
}

static inline int parse_frame(const struct context *context, struct frame *frame, uint16_t mac_high, uint32_t mac_low)
{
    const struct mbuf *mbuf = frame->mbuf;

    if (unlikely(mbuf->segments != 1)) {
        if (!chain_is_whole(context, mbuf))
            return DROP_MBUF_CHAIN;
        context->notices[NOTICE_SEVERAL_SEGMENTS]++;
    } else if (unlikely(mbuf->packet_length != mbuf->data_length || !is_in_buffer(context, mbuf))) {
        return DROP_MBUF_CHAIN;
    }
    if (unlikely(frame->held < ETHERNET_LENGTH))
        return DROP_RUNT_FRAME;
    const struct ethernet *ethernet = (const struct ethernet *)(context->octets + frame->start);
    uint16_t high = ethernet->destination_high, type = swap16(ethernet->ethertype);
    uint32_t low = ethernet->destination_low;
    frame->network = frame->start + ETHERNET_LENGTH;
    if (unlikely(type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ)) {
        if (frame->held < ETHERNET_LENGTH + VLAN_LENGTH)
            return DROP_RUNT_FRAME;
        const struct vlan *vlan = (const struct vlan *)(context->octets + frame->network);
        if (swap16(vlan->tag) & 0x0FFF)
            return DROP_OTHER_VLAN;
        context->notices[NOTICE_VLAN_PRIORITY]++;
        type = swap16(vlan->ethertype);
        frame->network += VLAN_LENGTH;
    }
    if (unlikely(high != mac_high || low != mac_low)
        && (type != ETHERTYPE_ARP || high != 0xFFFF || low != 0xFFFFFFFF))
        return DROP_OTHER_MAC;
    frame->ethertype = type;
    return OK;
}

/* The first option of a kind between two offsets of the arena, 0 where there is none. */
static int64_t find_option(const uint8_t *octets, int64_t at, int64_t stop, uint8_t kind)
{
    while (at < stop) {
        uint8_t option = octets[at];
        if (option == TCP_OPTION_END)
            break;
        if (option == TCP_OPTION_NOP) {
            at++;
            continue;
        }
        if (at + 1 >= stop)
            break;
        uint8_t length = octets[at + 1];
        if (length < 2 || at + length > stop)
            break;
        if (option == kind)
            return at;
        at += length;
    }
    return 0;
}

static inline int64_t find_timestamps(const uint8_t *octets, int64_t start, int64_t stop)
{
    if (likely(stop - start >= TIMESTAMPS_LENGTH && load32(octets + start) == ALIGNED_TIMESTAMPS))
        return start + 4;
    int64_t at = find_option(octets, start, stop, TCP_OPTION_TIMESTAMPS);
    return at != 0 && octets[at + 1] == 10 ? at + 2 : 0;
}

static void read_syn_options(const struct context *context, uint32_t row, int64_t start, int64_t stop)
{
    const uint8_t *octets = context->octets;
    int64_t mss = find_option(octets, start, stop, TCP_OPTION_MSS);
    int64_t scale = find_option(octets, start, stop, TCP_OPTION_WINDOW_SCALE);

    context->scale[row] = -1;
    if (mss != 0 && octets[mss + 1] == 4)
        context->mss[row] = octets[mss + 2] << 8 | octets[mss + 3];
    if (scale != 0 && octets[scale + 1] == 3)
        context->scale[row] = octets[scale + 2] < HIGHEST_SCALE ? octets[scale + 2] : HIGHEST_SCALE;
    context->sack_permitted[row] = find_option(octets, start, stop, TCP_OPTION_SACK_PERMITTED) != 0;
}

static inline int parse_tcp(const struct context *context, const struct frame *frame, uint32_t row, int64_t behind)
{
    int64_t held = frame->held - (frame->transport - frame->start), available = behind < held ? behind : held;

    if (unlikely(available < TCP_LENGTH))
        return DROP_TCP_HEADER;
    const struct tcp *tcp = (const struct tcp *)(context->octets + frame->transport);
    int64_t header = (tcp->data_offset >> 4) * 4, stop = frame->transport + header;
    if (unlikely(header < TCP_LENGTH || header > available))
        return DROP_TCP_HEADER;
    uint8_t control = tcp->control;
    context->source_port[row] = swap16(tcp->source_port);
    context->destination_port[row] = swap16(tcp->destination_port);
    context->seq[row] = swap32(tcp->seq);
    context->ack[row] = swap32(tcp->ack);
    context->control[row] = control;
    context->window[row] = swap16(tcp->window);
    context->payload[row] = stop;
    context->payload_length[row] = behind - header;
    context->mss[row] = 0;
    context->stamps[row] = header > TCP_LENGTH ? find_timestamps(context->octets, frame->transport + TCP_LENGTH, stop) : 0;
    if (unlikely(control & SYN))
        read_syn_options(context, row, frame->transport + TCP_LENGTH, stop);
    return OK;
}

static inline int parse_ipv4(const struct context *context, struct frame *frame, uint32_t row)
{
    int64_t before = frame->network - frame->start, held = frame->held - before;

    if (unlikely(held < IPV4_LENGTH))
        return DROP_IPV4_HEADER;
    const uint8_t *at = context->octets + frame->network;
    const struct ipv4 *ip = (const struct ipv4 *)at;
    int64_t header = (ip->version_length & 0xF) * 4, total = swap16(ip->total_length);
    if (unlikely(ip->version_length >> 4 != 4 || header < IPV4_LENGTH || held < header))
        return DROP_IPV4_HEADER;
    if (unlikely(total < header || total > frame->length - before))
        return DROP_IPV4_LENGTH;
    uint64_t sum = (uint64_t)load32(at) + load32(at + 4) + load32(at + 8) + load32(at + 12) + load32(at + 16);
    if (unlikely(header != IPV4_LENGTH)) {
        sum += sum_octets(at + IPV4_LENGTH, header - IPV4_LENGTH);
        context->notices[NOTICE_IPV4_OPTIONS]++;
    }
    if (unlikely(fold(sum) != 0xFFFF))
        return DROP_IPV4_CHECKSUM;
    if (unlikely(swap16(ip->fragment) & 0x3FFF))
        return DROP_FRAGMENT;
    frame->transport = frame->network + header;
    context->source[row] = swap32(ip->source);
    context->destination[row] = swap32(ip->destination);
    context->transport[row] = frame->transport;
    context->payload_length[row] = total - header;
    if (likely(ip->protocol == PROTOCOL_TCP)) {
        context->kind[row] = KIND_TCP;
        return parse_tcp(context, frame, row, total - header);
    }
    if (ip->protocol != PROTOCOL_ICMP)
        return DROP_OTHER_PROTOCOL;
    context->kind[row] = KIND_ICMP;
    return total - header >= ICMP_LENGTH && frame->mbuf->segments == 1 ? OK : DROP_ICMP_INVALID;
}

static inline int parse_row(const struct context *context, uint32_t row, uint16_t mac_high, uint32_t mac_low)
{
    const struct mbuf *mbuf = (const struct mbuf *)(context->octets + context->mbuf[row]);
    struct frame frame = {
        .mbuf = mbuf, .start = (int64_t)mbuf->buffer_address - context->base + mbuf->data_off,
        .held = mbuf->data_length, .length = mbuf->packet_length,
    };

    context->frame[row] = frame.start;
    int reason = parse_frame(context, &frame, mac_high, mac_low);
    if (unlikely(reason != OK))
        return reason;
    context->network[row] = frame.network;
    if (likely(frame.ethertype == ETHERTYPE_IPV4))
        return parse_ipv4(context, &frame, row);
    if (frame.ethertype != ETHERTYPE_ARP)
        return DROP_OTHER_ETHERTYPE;
    context->kind[row] = KIND_ARP;
    return frame.held >= frame.network - frame.start + ARP_LENGTH ? OK : DROP_ARP_INVALID;
}

static inline void ask_for_headers(const uint8_t *mbuf)
{
    __builtin_prefetch(mbuf);
    __builtin_prefetch(mbuf + sizeof(struct mbuf) + HEADROOM);
}

void twin_parse(const struct context *given, uint32_t count)
{
    const struct context copy = *given, *context = &copy;
    column(mbuf);
    column(port);
    column(out_port);
    column(flow);
    column(verdict);
    column(kind);
    uint16_t mac_high = swap16((uint16_t)context->mac_high[context->own_port]);
    uint32_t mac_low = swap32((uint32_t)context->mac_low[context->own_port]);
    int64_t own_port = context->own_port;

    for (uint32_t row = 0; row < count && row < AHEAD; row++)
        ask_for_headers(context->octets + mbuf[row]);
    for (uint32_t row = 0; row < count; row++) {
        if (likely(row + AHEAD < count))
            ask_for_headers(context->octets + mbuf[row + AHEAD]);
        port[row] = own_port;
        out_port[row] = own_port;
        flow[row] = NO_FLOW;
        verdict[row] = PENDING;
        int reason = parse_row(context, row, mac_high, mac_low);
        if (unlikely(reason != OK)) {
            kind[row] = KIND_NONE;
            verdict[row] = DROP;
            context->reason[row] = reason;
            context->drops[reason]++;
        }
    }
}

/* ---- look-up ---- */

/* In the second level of the cache, which can wait for more lines at a time than the first. */
static inline void ask_for_one_of_many(const void *line)
{
    __builtin_prefetch(line, 0, 2);
}

static inline uint32_t crc32c(uint32_t seed, uint64_t word)
{
#ifdef __SSE4_2__
    return (uint32_t)_mm_crc32_u64(seed, word);
#else
    for (int bit = 0; bit < 64; bit++, word >>= 1)
        seed = (seed >> 1) ^ (0x82F63B78u & -((seed ^ (uint32_t)word) & 1));
    return seed;
#endif
}

static inline uint32_t tag_of(uint32_t hash)
{
    return (hash & 0xFFFF) != 0 ? hash & 0xFFFF : 1;
}

/* A bit for each slot of a bucket with this tag. */
static inline uint32_t slots_with(const struct bucket *bucket, uint32_t tag)
{
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    uint32_t found = _mm256_cmpeq_epi16_mask(_mm256_loadu_si256((const __m256i *)bucket), _mm256_set1_epi16((short)tag));
#else
    uint32_t found = 0;
    for (int slot = 0; slot < SLOTS; slot++)
        found |= (uint32_t)(bucket->tag[slot] == tag) << slot;
#endif
    return found & ((1u << SLOTS) - 1);
}

struct key {
    uint32_t remote, local;
    uint16_t remote_port, local_port;
};

static inline int same_key(const struct hot *hot, int64_t entry, struct key key)
{
    const struct hot *record = hot + (entry >> 1);
    int side = entry & 1;

    return ((record->remote_address[side] ^ key.remote) | (record->local_address[side] ^ key.local)
            | (uint32_t)(record->remote_port[side] ^ key.remote_port) | (uint32_t)(record->local_port[side] ^ key.local_port)) == 0;
}

static inline uint64_t following(uint64_t count, uint64_t number, uint32_t tag)
{
    uint64_t further = count > STEPS ? number + 1 + tag % STEPS : number + 1;

    return further < count ? further : further - count;
}

static int64_t find(const struct bucket *buckets, uint64_t count, const struct hot *hot, uint32_t hash, struct key key)
{
    uint64_t number = hash * count >> 32;
    uint32_t tag = tag_of(hash);

    for (int step = 0; step < LONGEST; step++) {
        const struct bucket *bucket = buckets + number;
        for (uint32_t found = slots_with(bucket, tag); found; found &= found - 1) {
            int64_t entry = bucket->entry[__builtin_ctz(found)];
            if (same_key(hot, entry, key))
                return entry;
        }
        if (bucket->passed[tag % CLASSES] == 0)
            break;
        number = following(count, number, tag);
    }
    return NO_FLOW;
}

void twin_lookup(const struct context *context, uint32_t count)
{
    const int64_t *restrict source = context->source, *restrict destination = context->destination;
    const int64_t *restrict source_port = context->source_port, *restrict destination_port = context->destination_port;
    const int64_t *restrict kind = context->kind, *restrict verdict = context->verdict;
    const struct bucket *restrict buckets = context->buckets;
    const struct hot *restrict hot = context->hot;
    uint64_t bucket_count = (uint64_t)context->bucket_count;
    uint32_t listed = 0;
    int64_t *restrict further = context->above;
    column(hash);
    column(flow);

    for (uint32_t row = 0; row < count; row++) {
        uint32_t first = crc32c(SEED, (uint64_t)source[row] << 31 ^ (uint64_t)destination[row]);
        uint32_t found = crc32c(first, (uint64_t)source_port[row] << 16 | (uint64_t)destination_port[row]);
        hash[row] = found;
        ask_for_one_of_many(buckets + (found * bucket_count >> 32));
    }
    for (uint32_t row = 0; row < count; row++) {
        uint32_t hashed = (uint32_t)hash[row], tag = tag_of(hashed);
        uint64_t number = hashed * bucket_count >> 32;
        const struct bucket *bucket = buckets + number;
        uint32_t found = slots_with(bucket, tag);
        int64_t goes_on = (bucket->passed[tag % CLASSES] != 0) & (found == 0);
        int64_t entry = bucket->entry[__builtin_ctz(found | 1u << (SLOTS - 1))];
        const void *next = goes_on ? buckets + following(bucket_count, number, tag) : bucket, *connection = hot + (entry >> 1);
        flow[row] = found ? entry : NO_FLOW - goes_on;
        further[listed] = row;
        listed += (uint32_t)goes_on;
        ask_for_one_of_many(found ? connection : next);
    }
    for (uint32_t place = 0; place < listed; place++) {
        uint32_t row = (uint32_t)further[place], hashed = (uint32_t)hash[row], tag = tag_of(hashed);
        const struct bucket *bucket = buckets + following(bucket_count, hashed * bucket_count >> 32, tag);
        uint32_t found = slots_with(bucket, tag);
        int64_t entry = bucket->entry[__builtin_ctz(found | 1u << (SLOTS - 1))];
        flow[row] = found ? entry : NO_FLOW - (bucket->passed[tag % CLASSES] != 0);
        ask_for_one_of_many(hot + (found ? entry >> 1 : 0));
    }
    for (uint32_t row = 0; row < count; row++) {
        int64_t entry = flow[row];
        struct key key = {(uint32_t)source[row], (uint32_t)destination[row],
                          (uint16_t)source_port[row], (uint16_t)destination_port[row]};
        if (unlikely(kind[row] != KIND_TCP || verdict[row] != PENDING))
            flow[row] = NO_FLOW;
        else if (entry < NO_FLOW || (entry >= 0 && unlikely(!same_key(hot, entry, key))))
            flow[row] = find(buckets, bucket_count, hot, (uint32_t)hash[row], key);
    }
}

/* ---- rewrite ---- */

/* Writes a 32-bit word of the header, in host order, at any offset; returns what that adds to the checksum's sum. */
static inline uint64_t replace(uint8_t *octets, int64_t transport, int64_t at, uint32_t new)
{
    uint32_t old = load32(octets + at);

    store32(octets + at, swap32(new));
    uint16_t change = fold(difference(old, swap32(new)));
    return (at - transport) & 1 ? swap16(change) : change;
}

static uint64_t shift_sack(uint8_t *octets, int64_t transport, int64_t stop, uint32_t by)
{
    int64_t at = find_option(octets, transport + TCP_LENGTH, stop, TCP_OPTION_SACK);
    uint64_t total = 0;

    if (at != 0)
        for (int64_t edge = at + 2; edge < at + octets[at + 1] - 3; edge += 4)
            total += replace(octets, transport, edge, swap32(load32(octets + edge)) - by);
    return total;
}

/* Options of a row of a connection that is neither SPECIAL nor SCALED; returns what that adds to the checksum's sum. */
static inline uint64_t translate(const struct context *context, uint32_t row, const struct hot *hot, int side)
{
    uint8_t *octets = context->octets;
    int64_t transport = context->transport[row], payload = context->payload[row], stamps = context->stamps[row];
    uint64_t total = 0;

    if (payload - transport == TCP_LENGTH)
        return 0;
    if (hot->options & STAMPED && stamps != 0) {
        int64_t at = side == CLIENT ? stamps + 4 : stamps;
        uint32_t by = side == CLIENT ? -hot->timestamp_shift : hot->timestamp_shift;
        total += replace(octets, transport, at, swap32(load32(octets + at)) + by);
    }
    uint32_t by = hot->shift[1 - side];
    if (by != 0 && unlikely(payload - transport > TCP_LENGTH + (stamps != 0 ? TIMESTAMPS_LENGTH : 0)))
        total += shift_sack(octets, transport, payload, by);
    return total;
}

static inline void write_headers(const struct context *context, uint32_t row, const struct hot *hot, int side,
                                 const struct neighbour *neighbour)
{
    uint8_t *octets = context->octets;
    int other = 1 - side;
    struct ethernet *ethernet = (struct ethernet *)(octets + context->frame[row]);
    struct ipv4 *ip = (struct ipv4 *)(octets + context->network[row]);
    struct tcp *tcp = (struct tcp *)(octets + context->transport[row]);
    uint64_t total = translate(context, row, hot, side);

    ethernet->destination_high = swap16(neighbour->mac_high);
    ethernet->destination_low = swap32(neighbour->mac_low);
    ethernet->source_high = swap16((uint16_t)context->mac_high[neighbour->port]);
    ethernet->source_low = swap32((uint32_t)context->mac_low[neighbour->port]);
    uint32_t source = swap32(hot->local_address[other]), destination = swap32(hot->remote_address[other]);
    uint64_t addresses = difference(ip->source, source) + difference(ip->destination, destination);
    uint16_t before = (uint16_t)(ip->ttl | ip->protocol << 8);
    ip->ttl--;
    ip->source = source;
    ip->destination = destination;
    ip->checksum = update(ip->checksum, addresses + difference(before, before - 1u));
    uint16_t source_port = swap16(hot->local_port[other]), destination_port = swap16(hot->remote_port[other]);
    uint32_t seq = swap32((uint32_t)context->seq[row] + hot->shift[side]);
    uint32_t ack = swap32((uint32_t)context->ack[row] - hot->shift[other]);
    total += addresses + difference(load32((uint8_t *)tcp), source_port | (uint32_t)destination_port << 16)
             + difference(tcp->seq, seq) + difference(tcp->ack, ack);
    tcp->source_port = source_port;
    tcp->destination_port = destination_port;
    tcp->seq = seq;
    tcp->ack = ack;
    tcp->checksum = update(tcp->checksum, total);
}

void twin_rewrite(const struct context *given, uint32_t count)
{
    const struct context copy = *given, *context = &copy;
    column(verdict);
    column(out_port);
    const int64_t *restrict flow = context->flow;
    const struct hot *restrict hots = context->hot;
    const struct neighbour *restrict neighbours = context->neighbours;

    for (uint32_t row = 0; row < count; row++) {
        if (verdict[row] != FORWARD)
            continue;
        const struct hot *hot = hots + (flow[row] >> 1);
        int side = flow[row] & 1;
        if (unlikely(hot->options & (SPECIAL | HOLDS | OWNS | SCALED))) {
            verdict[row] = LEFT;
            continue;
        }
        const struct neighbour *neighbour = neighbours + hot->neighbour[1 - side];
        struct mbuf *mbuf = (struct mbuf *)(context->octets + context->mbuf[row]);
        const struct ipv4 *ip = (const struct ipv4 *)(context->octets + context->network[row]);
        int64_t length = (int64_t)mbuf->packet_length - (context->network[row] - context->frame[row]);
        int reason = neighbour->state < REACHABLE ? DROP_UNRESOLVED_NEIGHBOUR : ip->ttl <= 1 ? DROP_TTL_EXCEEDED
                     : length > context->mtu[neighbour->port] ? DROP_LARGER_THAN_MTU : OK;
        if (unlikely(reason != OK)) {
            verdict[row] = reason == DROP_UNRESOLVED_NEIGHBOUR ? DROP : REPORT;
            context->drops[reason]++;
            continue;
        }
        write_headers(context, row, hot, side, neighbour);
        if (unlikely(mbuf->offload != 0))
            mbuf->offload = 0;
        out_port[row] = neighbour->port;
    }
}

/* ---- express ---- */

#define TRANSPORT (ETHERNET_LENGTH + IPV4_LENGTH)
#define WITH_TIMESTAMPS (TCP_LENGTH + TIMESTAMPS_LENGTH)

/* later - earlier as a signed number (kernels/sequence.py). */
static inline int32_t distance(uint32_t later, uint32_t earlier)
{
    return (int32_t)(later - earlier);
}

static inline int has_usual_header(const struct tcp *tcp, const uint8_t *option, int64_t header)
{
    if ((tcp->control & (SYN | FIN | RST | ACK)) != ACK)
        return 0;
    return header == TCP_LENGTH || (header == WITH_TIMESTAMPS && load32(option) == ALIGNED_TIMESTAMPS);
}

static inline int is_usual(const struct hot *hot, int side, uint32_t seq, uint64_t stop, uint32_t ack)
{
    uint32_t following = hot->next[side];

    if (hot->state != ESTABLISHED || hot->closing != 0 || (hot->options & (HOLDS | SPECIAL | BOUND)) != BOUND)
        return 0;
    if (side == TARGET && hot->options & (OWNS | SCALED))
        return 0;  /* SCALED is the kernels' alone: as a rule the client is offered its target's scale */
    if (stop == seq && stop == following && ack == hot->acked[side])
        return 0;
    if (stop > 0xFFFFFFFF || (stop < following && distance((uint32_t)stop, following) > 0))
        return 0;
    int scale = side == CLIENT ? hot->scales >> 4 : hot->scales & 0x0F;
    int64_t away = distance((uint32_t)stop, hot->acked[1 - side] - hot->shift[side]);
    return away >= 0 && away <= (int64_t)WINDOW << scale;
}

static inline void follow(struct hot *hot, int side, uint32_t stop, uint32_t ack, uint32_t tick)
{
    if (distance(stop, hot->next[side]) > 0)
        hot->next[side] = stop;
    uint32_t sent = hot->next[1 - side] + hot->shift[1 - side];
    if (distance(ack, hot->acked[side]) > 0 && distance(sent, ack) >= 0)
        hot->acked[side] = ack;
    hot->stamp = tick;
}

/* Writes all headers of a usual segment; the frame has no tag and no IPv4 options. */
static inline void send_on(const struct context *context, uint8_t *frame, const struct hot *hot, int side, int64_t header,
                           const struct neighbour *neighbour)
{
    struct ethernet *ethernet = (struct ethernet *)frame;
    struct ipv4 *ip = (struct ipv4 *)(frame + ETHERNET_LENGTH);
    struct tcp *tcp = (struct tcp *)(frame + TRANSPORT);
    int other = 1 - side;
    uint64_t total = 0;

    if (hot->options & STAMPED && header != TCP_LENGTH) {
        uint8_t *at = frame + TRANSPORT + TCP_LENGTH + (side == TARGET ? 4 : 8);
        uint32_t old = load32(at), by = side == TARGET ? hot->timestamp_shift : -hot->timestamp_shift;
        store32(at, swap32(swap32(old) + by));
        total += difference(old, swap32(swap32(old) + by));
    }
    uint32_t source = swap32(hot->local_address[other]), destination = swap32(hot->remote_address[other]);
    uint32_t ports = swap16(hot->local_port[other]) | (uint32_t)swap16(hot->remote_port[other]) << 16;
    uint32_t seq = swap32(swap32(tcp->seq) + hot->shift[side]), ack = swap32(swap32(tcp->ack) - hot->shift[other]);
    uint64_t addresses = difference(ip->source, source) + difference(ip->destination, destination);
    total += addresses + difference(load32((uint8_t *)tcp), ports) + difference(tcp->seq, seq) + difference(tcp->ack, ack);
    ethernet->destination_high = swap16(neighbour->mac_high);
    ethernet->destination_low = swap32(neighbour->mac_low);
    ethernet->source_high = swap16((uint16_t)context->mac_high[neighbour->port]);
    ethernet->source_low = swap32((uint32_t)context->mac_low[neighbour->port]);
    ip->ttl--;
    ip->checksum = update(ip->checksum, addresses + difference(1, 0));
    ip->source = source;
    ip->destination = destination;
    store32((uint8_t *)tcp, ports);
    tcp->seq = seq;
    tcp->ack = ack;
    tcp->checksum = update(tcp->checksum, total);
}

static inline void post(const struct context *context, int64_t port, int64_t mbuf)
{
    int64_t filled = context->outbox_filled[port];

    if (likely(filled < context->outbox_room)) {
        context->outbox_mbuf[port * context->outbox_room + filled] = mbuf;
        context->outbox_filled[port] = filled + 1;
    } else {
        context->drops[DROP_TRANSMIT_FULL]++;
        context->outbox_released[context->outbox_to_release[0]++] = mbuf;
    }
}

int64_t twin_express(const struct context *given, uint32_t count)
{
    const struct context copy = *given, *context = &copy;
    column(verdict);
    const int64_t *restrict flows = context->flow, *restrict frames = context->frame, *restrict transports = context->transport;
    const int64_t *restrict mbufs = context->mbuf;
    struct hot *restrict hots = context->hot;
    int64_t left = 0, payloads[2] = {0, 0};
    uint64_t waiting = 0;

    for (uint32_t row = 0; row < count; row++) {
        int64_t flow = flows[row];
        if (flow < 0) {
            left++;
            continue;
        }
        struct hot *hot = hots + (flow >> 1);
        int side = flow & 1;
        uint64_t bit = 1ull << (flow >> 1 & BITS);
        uint8_t *frame = context->octets + frames[row];
        const struct ipv4 *ip = (const struct ipv4 *)(frame + ETHERNET_LENGTH);
        const struct tcp *tcp = (const struct tcp *)(frame + TRANSPORT);
        int64_t header = (tcp->data_offset >> 4) * 4;
        uint32_t seq = swap32(tcp->seq), ack = swap32(tcp->ack);
        uint64_t stop = (uint64_t)((int64_t)seq + swap16(ip->total_length) - IPV4_LENGTH - header);
        int passes = transports[row] - frames[row] == TRANSPORT && !(waiting & bit)
                     && has_usual_header(tcp, frame + TRANSPORT + TCP_LENGTH, header) && is_usual(hot, side, seq, stop, ack);
        const struct neighbour *neighbour = context->neighbours + (passes ? hot->neighbour[1 - side] : 0);
        struct mbuf *mbuf = (struct mbuf *)(context->octets + mbufs[row]);
        if (!passes || neighbour->state < REACHABLE || ip->ttl <= 1
            || (int64_t)mbuf->packet_length - ETHERNET_LENGTH > context->mtu[neighbour->port]) {
            waiting |= bit;
            left++;
            continue;
        }
        follow(hot, side, (uint32_t)stop, ack, (uint32_t)context->tick);
        send_on(context, frame, hot, side, header, neighbour);
        payloads[side] += stop != seq;
        if (unlikely(mbuf->offload != 0))
            mbuf->offload = 0;
        verdict[row] = SENT;
        post(context, neighbour->port, mbufs[row]);
    }
    for (int side = CLIENT; side <= TARGET; side++) {
        context->events[side * context->event_count + RECEIVED_PAYLOAD] += payloads[side];
        context->events[(1 - side) * context->event_count + SENT_PAYLOAD] += payloads[side];
    }
    return left;
}
