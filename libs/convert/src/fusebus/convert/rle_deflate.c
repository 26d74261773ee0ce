/* Deflate (RFC 1951) for the filtered rows of a photograph: Huffman codes and runs, nothing else.
 *
 * What is left of a photograph after PNG's filter is mostly noise. General compressors search it for copies and find
 * short ones, which cost more bits than the bytes they replace; zlib's strategy Z_RLE, runs only, is smaller on it.
 * Here a run repeats the byte before it, or the pixel before it: both are found sixteen bytes at a time.
 *
 * One call writes one block with codes of its own. It reads nothing but `data`, allocates nothing and keeps nothing, so
 * any number of threads may call it. The vectors are those of GCC and Clang, for any processor that is little-endian.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "rle_deflate.c stores whole words of its bits: little-endian processors only"
#endif

enum {
    LITERALS = 256,
    END_OF_BLOCK = 256,
    FIRST_LENGTH = 257, /* the symbol of a run of MIN_LENGTH bytes by RFC 1951 */
    SYMBOLS = 286,      /* of literals and lengths */
    NOTHING = SYMBOLS,  /* a code of no bits behind them: what a group of fewer than four literals ends with */
    DISTANCES = 6,      /* codes 0 to 5 reach back 8 bytes, the widest pixel */
    LENGTH_CODES = 19,  /* symbols of the code that the code lengths are written in */
    MAX_BITS = 14,      /* RFC 1951 allows 15; four codes of 14 and 7 bits that are left fill one word of 64 */
    MAX_LENGTH_BITS = 7,
    RUN = 4,            /* shorter ones cost about what their literals cost */
    MAX_RUN = 258,
    VECTOR = 16,
    TABLES = 8, /* of counts */
    MAX_LITERALS = 65535, /* of one segment */
};

typedef uint8_t bytes16 __attribute__((vector_size(VECTOR)));
typedef uint64_t words2 __attribute__((vector_size(VECTOR)));

/* Bits that do not fill a byte yet, from one block to the next: the lowest `count` (0 to 7) of `bits`. */
struct carry {
    uint64_t bits;
    uint64_t count;
};

/* So many literals, then a run; length 0: no run. */
struct segment {
    uint16_t literals, length, distance;
};

/* A Huffman code as it is written, its first bit the lowest, and how many bits it has. */
struct code {
    uint16_t bits;
    uint8_t length;
};

struct writer {
    uint8_t *out;
    uint64_t bits;
    unsigned count;
};

static const uint16_t LENGTH_BASE[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                         31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t LENGTH_EXTRA[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint8_t DISTANCE_BASE[DISTANCES] = {1, 2, 3, 4, 5, 7};
static const uint8_t DISTANCE_EXTRA[DISTANCES] = {0, 0, 0, 0, 1, 1};
static const uint8_t DISTANCE_CODE[9] = {0, 0, 1, 2, 3, 4, 4, 5, 5};
static const uint8_t LENGTH_ORDER[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

static inline uint64_t load8(const uint8_t *from) {
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline bytes16 load16(const uint8_t *from) {
    bytes16 value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline void put(struct writer *to, uint64_t bits, unsigned count) {
    to->bits |= bits << to->count;
    to->count += count;
}

static inline void put_code(struct writer *to, struct code code) { put(to, code.bits, code.length); }

/* Whole bytes go out; at most 7 bits stay. Eight bytes behind `out` are written whatever there is. */
static inline void flush(struct writer *to) {
    memcpy(to->out, &to->bits, sizeof to->bits);
    to->out += to->count >> 3;
    to->bits >>= to->count & 56;
    to->count &= 7;
}

/* How many of the `most` bytes at `at` repeat what lies `distance` before them. */
static inline size_t run_length(const uint8_t *at, size_t distance, size_t most) {
    size_t length = 0;
    for (; length + 8 <= most; length += 8) {
        uint64_t unlike = load8(at + length) ^ load8(at + length - distance);
        if (unlike) return length + ((unsigned)__builtin_ctzll(unlike) >> 3);
    }
    while (length < most && at[length] == at[length - distance]) length++;
    return length;
}

/* Which of sixteen bytes repeat what lies `distance` before them: a bit for each, the lowest for the first. */
static inline uint32_t alike(const uint8_t *at, size_t distance) {
    bytes16 same = (bytes16)(load16(at) == load16(at - distance));
#ifdef __SSE2__
    return (uint32_t)_mm_movemask_epi8((__m128i)same);
#else
    words2 bits = (words2)same & 0x8040201008040201u; /* of each byte its own one: the sum of eight has them all */
    return (uint32_t)(bits[0] * 0x0101010101010101u >> 56 | bits[1] * 0x0101010101010101u >> 56 << 8);
#endif
}

/* At which of the first sixteen places RUN (four) bytes in a row repeat, of those of which `repeats` says so. */
static inline uint32_t runs_in(uint32_t repeats) {
    repeats &= repeats >> 1;
    return repeats & repeats >> 2 & 0xffff;
}

static unsigned length_code(unsigned length) {
    unsigned code = 28;
    while (LENGTH_BASE[code] > length) code--;
    return code;
}

/* Parts the data into segments and counts what will be written; returns how many segments. */
static size_t part(const uint8_t *data, size_t size, size_t pixel, const uint8_t *codes_of_lengths,
                   struct segment *segments, uint32_t *symbols, uint32_t *distances) {
    uint32_t counts[TABLES][NOTHING + 1] = {{0}}; /* equal neighbours don't wait for each other */
    uint32_t byte = 0, whole = 0; /* which of the next sixteen bytes repeat the byte, or the pixel, before them */
    int known = 0;                /* from the sixteen before */
    size_t at = pixel < size ? pixel : size, from = 0, parts = 0;
    for (size_t i = 0; i < at; i++) counts[0][data[i]]++;
    while (at + VECTOR + RUN <= size) {
        const uint8_t *here = data + at;
        size_t ahead = at + 2 * VECTOR <= size ? VECTOR : RUN; /* at the end the next sixteen overlap these */
        if (!known) byte = alike(here, 1), whole = alike(here, pixel);
        uint32_t next_byte = alike(here + ahead, 1), next_whole = alike(here + ahead, pixel);
        uint32_t of_byte = runs_in(byte | next_byte << ahead), of_pixel = runs_in(whole | next_whole << ahead);
        known = !(of_byte | of_pixel);
        if (known) {
            for (int i = 0; i < VECTOR; i += TABLES)
                for (int table = 0; table < TABLES; table++) counts[table][here[i + table]]++;
            byte = next_byte, whole = next_whole;
            at += VECTOR;
            continue;
        }
        unsigned skipped = (unsigned)__builtin_ctz(of_byte | of_pixel);
        for (unsigned i = 0; i < skipped; i += 4) {
            counts[0][here[i]]++;
            counts[1][i + 1 < skipped ? here[i + 1] : NOTHING]++;
            counts[2][i + 2 < skipped ? here[i + 2] : NOTHING]++;
            counts[3][i + 3 < skipped ? here[i + 3] : NOTHING]++;
        }
        at += skipped;
        here += skipped;
        size_t distance = of_byte >> skipped & 1 ? 1 : pixel;
        size_t most = size - at < MAX_RUN ? size - at : MAX_RUN;
        size_t length = run_length(here, distance, most);
        for (; at - from > MAX_LITERALS; from += MAX_LITERALS) segments[parts++] = (struct segment){MAX_LITERALS, 0, 0};
        segments[parts++] = (struct segment){(uint16_t)(at - from), (uint16_t)length, (uint16_t)distance};
        symbols[FIRST_LENGTH + codes_of_lengths[length]]++;
        distances[DISTANCE_CODE[distance]]++;
        at += length;
        from = at;
    }
    for (; at < size; at++) counts[0][data[at]]++;
    for (; at - from > MAX_LITERALS; from += MAX_LITERALS) segments[parts++] = (struct segment){MAX_LITERALS, 0, 0};
    segments[parts++] = (struct segment){(uint16_t)(at - from), 0, 0};
    for (int i = 0; i < LITERALS; i++)
        for (int table = 0; table < TABLES; table++) symbols[i] += counts[table][i];
    symbols[END_OF_BLOCK] = 1;
    return parts;
}

/* Shell's sort: some hundred numbers that are partly in order. */
static void sort(uint64_t *values, int count) {
    static const int GAPS[] = {132, 57, 23, 10, 4, 1};
    for (size_t g = 0; g < sizeof GAPS / sizeof *GAPS; g++) {
        int gap = GAPS[g];
        for (int i = gap; i < count; i++) {
            uint64_t value = values[i];
            int to = i;
            for (; to >= gap && values[to - gap] > value; to -= gap) values[to] = values[to - gap];
            values[to] = value;
        }
    }
}

/* Lengths of a Huffman code (two queues, after van Leeuwen); those above `most` are cut to it, and as many shorter
 * codes become longer as pay for that. One symbol alone gets one bit, as RFC 1951 wants it. */
static void code_lengths(const uint32_t *weights, int symbols, int most, uint8_t *lengths) {
    uint64_t leaves[SYMBOLS], nodes[2 * SYMBOLS];
    int parents[2 * SYMBOLS], depths[2 * SYMBOLS], per_length[MAX_BITS + 1] = {0}, count = 0;
    memset(lengths, 0, (size_t)symbols);
    for (int i = 0; i < symbols; i++)
        if (weights[i]) leaves[count++] = (uint64_t)weights[i] << 16 | (uint64_t)i;
    if (count < 2) {
        lengths[count ? leaves[0] & 0xffff : 0] = 1;
        return;
    }
    sort(leaves, count);
    for (int i = 0; i < count; i++) nodes[i] = leaves[i] >> 16;
    for (int leaf = 0, inner = count, end = count; end < 2 * count - 1; end++) {
        nodes[end] = 0;
        for (int child = 0; child < 2; child++) {
            int lighter = inner == end || (leaf < count && nodes[leaf] <= nodes[inner]) ? leaf++ : inner++;
            nodes[end] += nodes[lighter];
            parents[lighter] = end;
        }
    }
    depths[2 * count - 2] = 0;
    for (int i = 2 * count - 3; i >= 0; i--) {
        depths[i] = depths[parents[i]] + 1;
        if (i < count) per_length[depths[i] < most ? depths[i] : most]++;
    }
    int32_t room = 1 << most; /* Kraft: the codes of each length take this much of the whole */
    for (int bits = 1; bits <= most; bits++) room -= per_length[bits] << (most - bits);
    for (; room < 0; room++) {
        int bits = most - 1;
        while (!per_length[bits]) bits--;
        per_length[bits]--;
        per_length[bits + 1] += 2;
        per_length[most]--;
    }
    for (int bits = most, i = 0; bits > 0; bits--)
        for (int n = per_length[bits]; n > 0; n--) lengths[leaves[i++] & 0xffff] = (uint8_t)bits;
}

/* Canonical codes of these lengths (RFC 1951, 3.2.2), bits reversed. */
static void codes_of(const uint8_t *lengths, int symbols, struct code *codes) {
    unsigned per_length[MAX_BITS + 1] = {0}, next[MAX_BITS + 1] = {0}, code = 0;
    for (int i = 0; i < symbols; i++) per_length[lengths[i]]++;
    per_length[0] = 0;
    for (int bits = 1; bits <= MAX_BITS; bits++) next[bits] = code = (code + per_length[bits - 1]) << 1;
    for (int i = 0; i < symbols; i++) {
        unsigned reversed = 0, value = lengths[i] ? next[lengths[i]]++ : 0;
        for (int bit = 0; bit < lengths[i]; bit++, value >>= 1) reversed = reversed << 1 | (value & 1);
        codes[i] = (struct code){(uint16_t)reversed, lengths[i]};
    }
}

/* The block's head: its kind and both codes' lengths, themselves run-length and Huffman coded (RFC 1951, 3.2.7). */
static void put_head(struct writer *to, const uint8_t *symbols, const uint8_t *distances) {
    uint8_t lengths[SYMBOLS + DISTANCES], kinds[SYMBOLS + DISTANCES], extra[SYMBOLS + DISTANCES];
    uint8_t kind_lengths[LENGTH_CODES];
    uint32_t weights[LENGTH_CODES] = {0};
    struct code codes[LENGTH_CODES];
    int of_symbols = SYMBOLS, of_distances = DISTANCES, of_kinds = LENGTH_CODES, count = 0;
    while (!symbols[of_symbols - 1]) of_symbols--; /* the end of the block is always there */
    while (of_distances > 1 && !distances[of_distances - 1]) of_distances--;
    memcpy(lengths, symbols, (size_t)of_symbols);
    memcpy(lengths + of_symbols, distances, (size_t)of_distances);
    for (int at = 0, all = of_symbols + of_distances; at < all;) {
        int alike = 1;
        while (at + alike < all && lengths[at + alike] == lengths[at]) alike++;
        int kind = lengths[at], repeated = alike;
        if (kind == 0 && alike >= 3) {
            repeated = alike < 138 ? alike : 138;
            kind = repeated < 11 ? 17 : 18;
            extra[count] = (uint8_t)(repeated - (kind == 17 ? 3 : 11));
        } else if (kind != 0 && at > 0 && lengths[at - 1] == kind && alike >= 3) {
            repeated = alike < 6 ? alike : 6;
            kind = 16;
            extra[count] = (uint8_t)(repeated - 3);
        } else {
            repeated = 1;
        }
        weights[kind]++;
        kinds[count++] = (uint8_t)kind;
        at += repeated;
    }
    code_lengths(weights, LENGTH_CODES, MAX_LENGTH_BITS, kind_lengths);
    codes_of(kind_lengths, LENGTH_CODES, codes);
    while (of_kinds > 4 && !kind_lengths[LENGTH_ORDER[of_kinds - 1]]) of_kinds--;
    put(to, 0, 1); /* not the last block */
    put(to, 2, 2); /* dynamic codes */
    put(to, (uint64_t)(of_symbols - 257), 5);
    put(to, (uint64_t)(of_distances - 1), 5);
    put(to, (uint64_t)(of_kinds - 4), 4);
    flush(to);
    for (int i = 0; i < of_kinds; i++) {
        put(to, kind_lengths[LENGTH_ORDER[i]], 3);
        flush(to);
    }
    for (int i = 0; i < count; i++) {
        put_code(to, codes[kinds[i]]);
        if (kinds[i] >= 16) put(to, extra[i], kinds[i] == 16 ? 2 : kinds[i] == 17 ? 3 : 7);
        flush(to);
    }
}

/* Four literals to a word, joined among themselves first: only the whole waits for the bits before it. The last group of a segment is filled up with codes of no bits: how many literals it has
 * can't be foreseen, and a wrong guess of the processor costs more than the codes. */
static inline const uint8_t *put_literals(struct writer *to, const uint8_t *from, unsigned count,
                                          const struct code *codes) {
    for (; count > 4; count -= 4, from += 4) {
        struct code code[4] = {codes[from[0]], codes[from[1]], codes[from[2]], codes[from[3]]};
        unsigned first = code[0].length + code[1].length, last = code[2].length + code[3].length;
        uint64_t bits = code[0].bits | (uint64_t)code[1].bits << code[0].length;
        put(to, bits | (code[2].bits | (uint64_t)code[3].bits << code[2].length) << first, first + last);
        flush(to);
    }
    for (unsigned i = 0; i < 4; i++) put_code(to, codes[i < count ? from[i] : NOTHING]);
    flush(to);
    return from + count;
}

/* Deflate `size` bytes into one block that is not the last.
 *
 * pixel     bytes of a pixel, 1 to 8: the other distance of a run
 * carry     the bits that the block before left over; then those that this one leaves
 * segments  6 bytes for each 4 of `size`, and 6 * (size / 65535 + 2): space to work in
 * out       2 * size + 1024 bytes: no byte takes more than MAX_BITS, and the head less than 1 KB
 *
 * Returns how many bytes of `out` are the block's.
 */
size_t fusebus_rle_deflate(const uint8_t *data, size_t size, size_t pixel, struct carry *carry,
                           struct segment *segments, uint8_t *out) {
    uint32_t symbols[SYMBOLS] = {0}, distances[DISTANCES] = {0};
    uint8_t symbol_lengths[SYMBOLS], distance_lengths[DISTANCES], codes_of_lengths[MAX_RUN + 1];
    struct code codes[NOTHING + 1], distance_codes[DISTANCES];
    for (unsigned length = 3; length <= MAX_RUN; length++) codes_of_lengths[length] = (uint8_t)length_code(length);
    size_t parts = part(data, size, pixel, codes_of_lengths, segments, symbols, distances);
    code_lengths(symbols, SYMBOLS, MAX_BITS, symbol_lengths);
    code_lengths(distances, DISTANCES, MAX_BITS, distance_lengths);
    codes_of(symbol_lengths, SYMBOLS, codes);
    codes_of(distance_lengths, DISTANCES, distance_codes);
    codes[NOTHING] = (struct code){0, 0};

    struct writer to = {out, carry->bits, (unsigned)carry->count};
    put_head(&to, symbol_lengths, distance_lengths);
    for (size_t i = 0; i < parts; i++) {
        data = put_literals(&to, data, segments[i].literals, codes);
        if (!segments[i].length) continue;
        unsigned of_length = codes_of_lengths[segments[i].length], of_distance = DISTANCE_CODE[segments[i].distance];
        put_code(&to, codes[FIRST_LENGTH + of_length]);
        put(&to, segments[i].length - LENGTH_BASE[of_length], LENGTH_EXTRA[of_length]);
        put_code(&to, distance_codes[of_distance]);
        put(&to, segments[i].distance - DISTANCE_BASE[of_distance], DISTANCE_EXTRA[of_distance]);
        flush(&to);
        data += segments[i].length;
    }
    put_code(&to, codes[END_OF_BLOCK]);
    flush(&to);
    *carry = (struct carry){to.bits, to.count};
    return (size_t)(to.out - out);
}
