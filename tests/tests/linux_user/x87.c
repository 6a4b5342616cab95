/* What the x87's functions give: a line for each, of the operation's number, arguments, result and status. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef union {
    long double value;
    struct {
        uint64_t significand;
        uint16_t top;
    } parts;
} number;

static uint64_t state = 88172645463325252;

static uint64_t random64(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static number make(uint16_t top, uint64_t significand) {
    number n;
    memset(&n, 0, sizeof n);
    n.parts.top = top;
    n.parts.significand = significand;
    return n;
}

/* An ordinary number whose exponent is at most `range` away from 0. */
static number ordinary(int range) {
    int exponent = (int)(random64() % (2 * range + 1)) - range;
    return make((16383 + exponent) | (random64() & 0x8000), random64() | 1ull << 63);
}

#define UNARY(text) \
    __asm__ volatile("fnclex\n\t" text "\n\tfnstsw %%ax" : "=t"(result.value), "=a"(status) : "0"(x.value))
#define PUSHES(text) \
    __asm__ volatile("fnclex\n\t" text "\n\tfnstsw %%ax" : "=t"(result.value), "=u"(second.value), "=a"(status) : "0"(x.value))
#define BINARY(text) \
    __asm__ volatile("fnclex\n\t" text "\n\tfnstsw %%ax" : "=t"(result.value), "=a"(status) : "0"(x.value), "u"(y.value) : "st(1)")

static void one(int operation, number x, number y) {
    number result = make(0, 0), second = make(0, 0);
    uint16_t status = 0;
    switch (operation) {
    case 0: UNARY("fsin"); break;
    case 1: UNARY("fcos"); break;
    case 2: PUSHES("fptan"); result = second; break;
    case 3: UNARY("f2xm1"); break;
    case 4: BINARY("fyl2x"); break;
    case 5: BINARY("fyl2xp1"); break;
    case 6: BINARY("fpatan"); break;
    }
    /* Invalid, division by zero and, for angles, out of range. */
    printf("%d %04x %016llx %04x %016llx %04x %016llx %x\n", operation, x.parts.top,
           (unsigned long long)x.parts.significand, y.parts.top,
           (unsigned long long)y.parts.significand, result.parts.top,
           (unsigned long long)result.parts.significand,
           status & (operation < 3 ? 0x405 : 5));
}

int main(void) {
    const number special[] = {
        make(0, 0), make(0x8000, 0), make(0x3fff, 1ull << 63), make(0xbfff, 1ull << 63),
        make(0x7fff, 1ull << 63), make(0xffff, 1ull << 63), make(0x7fff, 3ull << 62),
        make(0x3ffe, 1ull << 63), make(0x4000, 1ull << 63), make(0xc000, 3ull << 62),
    };
    for (int operation = 0; operation < 7; operation++) {
        for (int i = 0; i < 10; i++) {
            /* Out of their range F2XM1 and FYL2XP1 may give anything. */
            int small = operation == 3 || operation == 5;
            if (small && (i == 4 || i == 5 || i > 7)) continue;
            if (operation == 5 && i == 3) continue;
            for (int j = 0; j < (operation < 4 ? 1 : 10); j++) one(operation, special[i], special[j]);
        }
        for (int i = 0; i < 300; i++) {
            number x = ordinary(operation == 3 ? 30 : operation == 5 ? 40 : i < 200 ? 12 : 62);
            if (operation == 3) x = make(x.parts.top & 0x8000 | (x.parts.top & 0x3fff) % 30 + 16352, x.parts.significand);
            if (operation == 5) x = make(x.parts.top & 0x8000 | (x.parts.top & 0x3fff) % 40 + 16340, x.parts.significand);
            if (operation == 4) x.parts.top &= 0x7fff;
            if (operation == 4 && i % 3 == 0) x.parts.top = 16383 + (int)(random64() % 32000) - 16000;
            one(operation, x, ordinary(20));
        }
    }
    return 0;
}
