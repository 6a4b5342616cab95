// The translator's kernel suite: each kernel is one class of work. Usage: kernels NAME.
// It prints a number that depends on everything it has done.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <arm_neon.h>
#endif

#define NOINLINE __attribute__((noinline))

static uint64_t seed = 88172645463325252u;
static uint64_t next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static NOINLINE uint64_t fibonacci(uint64_t n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
static uint64_t calls(int rounds) { return fibonacci(27 + rounds); }

static NOINLINE uint64_t add(uint64_t a) { return a + 7; }
static NOINLINE uint64_t twist(uint64_t a) { return a ^ a >> 3; }
static NOINLINE uint64_t times(uint64_t a) { return a * 5; }
static NOINLINE uint64_t turn(uint64_t a) { return a << 9 | a >> 55; }
static uint64_t indirect(int rounds) {
    uint64_t (*volatile table[4])(uint64_t) = {add, twist, times, turn};
    uint64_t value = 1;
    for (int i = 0; i < rounds * 4000000; i++) value = table[(value >> 5 ^ i) & 3](value);
    return value;
}

static uint64_t sieve(int rounds) {
    enum { LIMIT = 1 << 20 };
    static uint8_t composite[LIMIT];
    uint64_t count = 0;
    for (int round = 0; round < rounds * 6; round++) {
        memset(composite, 0, LIMIT);
        for (uint64_t i = 2; i < LIMIT; i++) {
            if (composite[i]) continue;
            count++;
            for (uint64_t j = i * i; j < LIMIT; j += i) composite[j] = 1;
        }
    }
    return count;
}

static uint64_t hash(int rounds) {
    static uint8_t bytes[1 << 16];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = next();
    uint64_t total = 0;
    for (int round = 0; round < rounds * 100; round++) {
        uint64_t value = 14695981039346656037u + round;
        for (size_t i = 0; i < sizeof bytes; i++) value = (value ^ bytes[i]) * 1099511628211u;
        uint32_t a = 1, b = 2, c = 3;
        for (size_t i = 0; i + 4 <= sizeof bytes; i += 4) {
            uint32_t word;
            memcpy(&word, bytes + i, 4);
            a = (a ^ word) * 0x9e3779b1, b = b + (a << 13 | a >> 19), c ^= b - a;
        }
        total += value + c;
    }
    return total;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
static uint64_t sorting(int rounds) {
    enum { COUNT = 100000 };
    static uint32_t numbers[COUNT];
    uint64_t total = 0;
    for (int round = 0; round < rounds * 3; round++) {
        for (int i = 0; i < COUNT; i++) numbers[i] = next();
        qsort(numbers, COUNT, sizeof *numbers, compare);
        total += numbers[COUNT / 3];
    }
    return total;
}

static NOINLINE uint64_t interpret(const uint8_t *code, uint64_t n) {
    uint64_t stack[16], *top = stack;
    *top = 0;
    for (;;) {
        switch (*code++) {
        case 0: *++top = n; break;
        case 1: top[-1] += *top; top--; break;
        case 2: top[-1] ^= *top; top--; break;
        case 3: *top = *top << 7 | *top >> 57; break;
        case 4: *top += *code++; break;
        case 5: n--; break;
        case 6: if (n) code -= *code; else code++; break;
        case 7: *top *= 3; break;
        default: return *top;
        }
    }
}
static uint64_t bytecode(int rounds) {
    static const uint8_t code[] = {0, 1, 3, 4, 9, 7, 0, 2, 5, 6, 10, 99};
    return interpret(code, rounds * 2000000);
}

static uint64_t chase(int rounds) {
    enum { COUNT = 1 << 16 };
    static uint32_t follows[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) follows[i] = i;
    for (uint32_t i = COUNT - 1; i > 0; i--) {
        uint32_t other = next() % i, kept = follows[i];
        follows[i] = follows[other], follows[other] = kept;
    }
    uint32_t at = 0;
    for (int i = 0; i < rounds * 20000000; i++) at = follows[at];
    return at;
}

static uint64_t scalar(int rounds) {
    uint64_t inside = 0;
    int size = 200 * rounds;
    for (int y = 0; y < size; y++) {
        for (int x = 0; x < size; x++) {
            double cr = 3.0 * x / size - 2.2, ci = 2.4 * y / size - 1.2, r = 0, i = 0;
            int step = 0;
            for (; step < 100 && r * r + i * i < 4; step++) {
                double next_r = r * r - i * i + cr;
                i = 2 * r * i + ci, r = next_r;
            }
            inside += step;
        }
    }
    return inside;
}

static uint64_t matrix(int rounds) {
    enum { SIZE = 256 };
    static float a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) a[i][j] = next() % 16, b[i][j] = next() % 16;
    for (int round = 0; round < rounds * 4; round++)
        for (int i = 0; i < SIZE; i++)
            for (int k = 0; k < SIZE; k++)
                for (int j = 0; j < SIZE; j++) c[i][j] += a[i][k] * b[k][j];
    double total = 0;
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) total += c[i][j];
    return total;
}

static uint64_t bodies(int rounds) {
    enum { COUNT = 5 };
    double x[COUNT][3], v[COUNT][3], m[COUNT];
    for (int i = 0; i < COUNT; i++) {
        m[i] = 1 + i;
        for (int k = 0; k < 3; k++) x[i][k] = (i * 7 + k * 3) % 11, v[i][k] = (i + k) % 3 * 0.1;
    }
    for (int step = 0; step < rounds * 100000; step++) {
        for (int i = 0; i < COUNT; i++)
            for (int j = i + 1; j < COUNT; j++) {
                double d[3], square = 0.01;
                for (int k = 0; k < 3; k++) d[k] = x[i][k] - x[j][k], square += d[k] * d[k];
                double force = 0.001 / (square * sqrt(square));
                for (int k = 0; k < 3; k++) v[i][k] -= d[k] * m[j] * force, v[j][k] += d[k] * m[i] * force;
            }
        for (int i = 0; i < COUNT; i++)
            for (int k = 0; k < 3; k++) x[i][k] += 0.001 * v[i][k];
    }
    double total = 0;
    for (int i = 0; i < COUNT; i++) total += fabs(x[i][0]) + fabs(x[i][1]) + fabs(x[i][2]);
    return total * 1e9;
}

static uint64_t memory(int rounds) {
    enum { BYTES = 1 << 20 };
    static char from[BYTES + 1], to[BYTES + 1];
    uint64_t total = 0;
    for (int round = 0; round < rounds * 300; round++) {
        memset(from, 'a' + round % 26, BYTES);
        memcpy(to, from, BYTES);
        memmove(to + 100, to, BYTES - 100);
        total += strlen(to) + (uint8_t)to[round];
        total += (char *)memchr(to, 0, BYTES + 1) - to;
    }
    return total;
}

static uint64_t strings(int rounds) {
    static char text[64][64];
    uint64_t total = 0;
    for (int i = 0; i < 64; i++) snprintf(text[i], 64, "%d-a-word-of-text-%d", i * 7919, i);
    for (int round = 0; round < rounds * 300; round++)
        for (int i = 0; i < 64; i++) {
            char joined[160];
            strcpy(joined, text[i]);
            strcat(joined, text[(i + round) & 63]);
            total += strlen(joined) + (strcmp(text[i], text[round & 63]) > 0);
            total += strchr(joined, 't') - joined + (strstr(joined, "text-6") != 0);
        }
    return total;
}

static uint64_t ciphers(int rounds) {
    uint64_t total = 0;
#if defined(__x86_64__)
    __m128i state = _mm_set_epi64x(1, 2), key = _mm_set_epi64x(3, 4);
    uint64_t crc = 0;
    for (int i = 0; i < rounds * 4000000; i++) {
        state = _mm_aesenc_si128(state, key);
        crc = _mm_crc32_u64(crc, i);
    }
    total = crc + _mm_cvtsi128_si64(state);
#elif defined(__aarch64__)
    uint8x16_t state = vdupq_n_u8(1), key = vdupq_n_u8(3);
    uint32_t crc = 0;
    for (int i = 0; i < rounds * 4000000; i++) {
        state = vaesmcq_u8(vaeseq_u8(state, key));
        crc = __crc32cd(crc, i);
    }
    total = crc + vgetq_lane_u64(vreinterpretq_u64_u8(state), 0);
#else
    static uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) value = value >> 1 ^ (value & 1 ? 0x82f63b78 : 0);
        table[i] = value;
    }
    uint32_t crc = 0;
    for (int i = 0; i < rounds * 16000000; i++) crc = table[(crc ^ i) & 255] ^ crc >> 8;
    total = crc;
#endif
    return total;
}

static uint64_t bigint(int rounds) {
    enum { WORDS = 64 };
    static uint64_t a[WORDS], b[WORDS], c[2 * WORDS];
    for (int i = 0; i < WORDS; i++) a[i] = next(), b[i] = next();
    uint64_t total = 0;
    for (int round = 0; round < rounds * 1500; round++) {
        memset(c, 0, sizeof c);
        for (int i = 0; i < WORDS; i++) {
            uint64_t carry = 0;
            for (int j = 0; j < WORDS; j++) {
                unsigned __int128 product = (unsigned __int128)a[i] * b[j] + c[i + j] + carry;
                c[i + j] = product, carry = product >> 64;
            }
            c[i + WORDS] = carry;
        }
        a[round % WORDS] ^= c[WORDS];
        total += c[round % WORDS];
    }
    return total;
}

static uint64_t pixels(int rounds) {
    enum { COUNT = 1 << 14 };
    static uint8_t a[COUNT], b[COUNT], c[COUNT];
    static int16_t d[COUNT];
    for (int i = 0; i < COUNT; i++) a[i] = next(), b[i] = next();
    uint64_t total = 0;
    for (int round = 0; round < rounds * 1000; round++) {
        for (int i = 0; i < COUNT; i++) {
            int sum = a[i] + b[i];
            c[i] = sum > 255 ? 255 : sum;
        }
        for (int i = 0; i < COUNT; i++) d[i] = (c[i] * 77 >> 3) - a[i];
        uint32_t difference = 0;
        for (int i = 0; i < COUNT; i++) difference += abs(a[i] - c[i]) + (d[i] > 0);
        total += difference;
        a[round % COUNT] ^= difference;
    }
    return total;
}

/* Long doubles: the x87's on x86, 128 bits by library elsewhere. */
static uint64_t extended(int rounds) {
    enum { COUNT = 256 };
    static long double values[COUNT];
    for (int i = 0; i < COUNT; i++) values[i] = (long double)(next() >> 40) / 3;
    long double sum = 0;
    for (int round = 0; round < rounds * 400; round++)
        for (int i = 0; i < COUNT; i++) {
            long double x = values[i];
            sum += x * 0.25L - sum / (x + 1.0L);
            if (x > sum) values[i] = x - sum * 0.125L;
        }
    return (uint64_t)sum;
}

static const struct {
    const char *name;
    uint64_t (*run)(int);
    int rounds;
} KERNELS[] = {
    {"calls", calls, 7},
    {"indirect", indirect, 8},
    {"sieve", sieve, 6},
    {"hash", hash, 8},
    {"sorting", sorting, 4},
    {"bytecode", bytecode, 4},
    {"chase", chase, 2},
    {"scalar", scalar, 5},
    {"matrix", matrix, 6},
    {"bodies", bodies, 8},
    {"memory", memory, 1},
    {"strings", strings, 20},
    {"ciphers", ciphers, 10},
    {"bigint", bigint, 10},
    {"pixels", pixels, 8},
    {"extended", extended, 20},
};

int main(int count, char **arguments) {
    for (size_t i = 0; count == 2 && i < sizeof KERNELS / sizeof *KERNELS; i++)
        if (!strcmp(KERNELS[i].name, arguments[1])) {
            printf("%s %llu\n", arguments[1], (unsigned long long)KERNELS[i].run(KERNELS[i].rounds));
            return 0;
        }
    return 2;
}
