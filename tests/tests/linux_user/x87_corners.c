/* What the x87 makes of numbers at the edges of its format, under each rounding and precision: a line
 * for each operation, control word and first operand, with a sum over the second operands. With two
 * more arguments (operation, control word) each result of them stands alone. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t significand;
    uint16_t top;
} __attribute__((packed)) number;

/* Sign and exponent; significand. */
static const number numbers[] = {
    {0, 0}, {0, 0x8000},                                               /* zeros */
    {1, 0}, {0x7fffffffffffffff, 0x8000}, {0x4000000000000000, 0},     /* denormals */
    {0x8000000000000000, 0}, {0xc000000000000001, 0x8000},             /* pseudo-denormals */
    {0x8000000000000000, 1}, {0xffffffffffffffff, 0x8001},             /* the smallest */
    {0x8000000000000000, 0x3fff}, {0x8000000000000000, 0xbfff},        /* 1, -1 */
    {0xffffffffffffffff, 0x3ffe}, {0x8000000000000001, 0x3fff},        /* beside 1 */
    {0xc000000000000000, 0x3fff}, {0xa000000000000000, 0xc000},        /* 1.5, -2.5 */
    {0x8000000000000000, 0x3ffe}, {0xc000000000000000, 0xbffe},        /* 0.5, -0.75 */
    {0xe000000000000000, 0x4001}, {0xc90fdaa22168c235, 0x4000},        /* 7, pi */
    {0xaaaaaaaaaaaaaaab, 0x3ffd}, {0xd49a784bcd1b8afe, 0x4003},
    {0x8000000000000000, 0x400e}, {0xfffe000000000000, 0x400d},        /* 32768, 32767 */
    {0xffff000000000000, 0xc00d}, {0xfffffffe00000000, 0x401d},
    {0xffffffff80000000, 0x401d}, {0x8000000000000000, 0x401e},        /* about 2^31 */
    {0x8000000000000000, 0x403d}, {0xfffffffffffffffe, 0x403d},        /* about 2^62, 2^63 */
    {0x8000000000000000, 0xc03e}, {0x8000000000000001, 0x403e},
    {0xffffff8000000000, 0x407e}, {0xffffff0000000000, 0x407e},        /* the largest single */
    {0x8000000000000000, 0x3f81}, {0x8000010000000000, 0x3f80},        /* the smallest single */
    {0xfffffffffffff800, 0x43fe}, {0xfffffffffffffc00, 0x43fe},        /* the largest double */
    {0x8000000000000000, 0x3c01}, {0xfffffffffffff800, 0x3c00},        /* the smallest double */
    {0xffffffffffffffff, 0x7ffe}, {0x8000000000000000, 0xfffe},        /* the largest */
    {0x8000000000000000, 0x7fff}, {0x8000000000000000, 0xffff},        /* infinities */
    {0xc000000000000000, 0xffff}, {0xc000000000000001, 0x7fff},        /* quiet NaNs */
    {0x8000000000000001, 0x7fff}, {0xbfffffffffffffff, 0xffff},        /* signalling NaNs */
    {0, 0x7fff}, {0x4000000000000000, 0xffff}, {0, 0x3fff},            /* unsupported */
    {0x7fffffffffffffff, 0xc000},
};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

static const uint16_t controls[] = {0x37f, 0x77f, 0xb7f, 0xf7f, 0x27f, 0x67f, 0x07f, 0xc7f};
enum { CONTROLS = sizeof controls / sizeof controls[0] };

typedef struct {
    number first, second;
    uint64_t stored;
    unsigned long flags;
    uint16_t status;
} result;

/* Where the code below finds its operands without a register each. */
static number x, y;
static uint16_t control;
static uint64_t low;
static result r;

/* ST(0) is x, ST(1) is y. */
#define CASE(n, text)                                                                              \
    case n:                                                                                        \
        __asm__ volatile("fninit\n\tfldcw %[control]\n\tfldt %[y]\n\tfldt %[x]\n\t"                \
                         "xor %%eax, %%eax\n\tstc\n\t" text "\n\tpushf\n\tpop %[flags]\n\t"        \
                         "fnstsw %[status]\n\tfstpt %[first]\n\tfstpt %[second]\n\tfninit"         \
                         : [flags] "=&r"(r.flags), [status] "=m"(r.status),                        \
                           [first] "=m"(r.first), [second] "=m"(r.second),                         \
                           [stored] "+m"(r.stored)                                                 \
                         : [control] "m"(control), [x] "m"(x), [y] "m"(y), [low] "m"(low)          \
                         : "eax", "cc", "memory", "st", "st(1)", "st(2)", "st(3)", "st(4)",        \
                           "st(5)", "st(6)", "st(7)");                                             \
        break;

static const char *const names[] = {
    "fadd", "fsub", "fsubr", "fmul", "fdiv", "fdivr", "faddp", "fdivrp", "fsqrt", "frndint",
    "fscale", "fxtract", "fprem", "fprem1", "fxam", "ftst", "fcom", "fucom", "fcomi", "fucomi",
    "fchs", "fabs", "fxch", "fcmovb", "fadds", "faddl", "fiaddl", "fiadds", "fdivl", "fidivrl",
    "fcoms", "fcoml", "ficoml", "flds", "fldl", "fildq", "fsts", "fstl", "fistl", "fistps",
    "fistpq", "fisttpl", "fisttpq", "fbstp", "fldl2t", "fldpi", "fldln2", "fadd empty",
    "fstp st(1)", "fld st(1)", "fincstp", "ffree", "fcompp",
};
enum { OPERATIONS = sizeof names / sizeof names[0] };

static void run(int operation) {
    /* As single, double and integers: bits of y's significand that vary, and its edges. */
    low = y.significand << 3 ^ y.significand >> 32 ^ (uint64_t)y.top << 48;
    memset(&r, 0, sizeof r);
    switch (operation) {
        CASE(0, "fadd %%st(1), %%st")
        CASE(1, "fsub %%st(1), %%st")
        CASE(2, "fsubr %%st(1), %%st")
        CASE(3, "fmul %%st(1), %%st")
        CASE(4, "fdiv %%st(1), %%st")
        CASE(5, "fdivr %%st(1), %%st")
        CASE(6, "faddp")
        CASE(7, "fdivrp")
        CASE(8, "fsqrt")
        CASE(9, "frndint")
        CASE(10, "fscale")
        CASE(11, "fxtract")
        CASE(12, "fprem")
        CASE(13, "fprem1")
        CASE(14, "fxam")
        CASE(15, "ftst")
        CASE(16, "fcom")
        CASE(17, "fucom")
        CASE(18, "fcomi %%st(1), %%st")
        CASE(19, "fucomi %%st(1), %%st")
        CASE(20, "fchs")
        CASE(21, "fabs")
        CASE(22, "fxch")
        CASE(23, "fcmovb %%st(1), %%st")
        CASE(24, "fadds %[low]")
        CASE(25, "faddl %[low]")
        CASE(26, "fiaddl %[low]")
        CASE(27, "fiadds %[low]")
        CASE(28, "fdivl %[low]")
        CASE(29, "fidivrl %[low]")
        CASE(30, "fcoms %[low]")
        CASE(31, "fcoml %[low]")
        CASE(32, "ficoml %[low]")
        CASE(33, "flds %[low]")
        CASE(34, "fldl %[low]")
        CASE(35, "fildq %[low]")
        CASE(36, "fsts %[stored]")
        CASE(37, "fstl %[stored]")
        CASE(38, "fistl %[stored]")
        CASE(39, "fistps %[stored]")
        CASE(40, "fistpq %[stored]")
        CASE(41, "fisttpl %[stored]")
        CASE(42, "fisttpq %[stored]")
        CASE(43, "fbstp %[first]\n\tfldt %[first]")
        CASE(44, "fldl2t")
        CASE(45, "fldpi")
        CASE(46, "fldln2")
        CASE(47, "fadd %%st(2), %%st")
        CASE(48, "fstp %%st(1)")
        CASE(49, "fld %%st(1)")
        CASE(50, "fincstp")
        CASE(51, "ffree %%st(0)")
        CASE(52, "fcompp")
    }
    /* C1 tells the way of rounding where nothing else is said of it; our C1 does not. */
    if (operation != 12 && operation != 13 && operation != 14) r.status &= ~0x200;
    r.flags &= 0x8d5;
    /* How far a remainder comes at once is the processor's business. */
    if ((operation == 12 || operation == 13) && r.status & 0x400)
        memset(&r.first, 0, sizeof r.first);
}

static uint64_t mix(uint64_t sum, uint64_t word) {
    return (sum ^ word) * 0x100000001b3 + (sum >> 29);
}

static uint64_t sum_of_result(void) {
    uint64_t sum = mix(mix(14695981039346656037u, r.first.significand), r.first.top);
    sum = mix(mix(sum, r.second.significand), r.second.top);
    return mix(mix(mix(sum, r.stored), r.flags), r.status);
}

int main(int argc, char **argv) {
    int only = argc == 3 ? atoi(argv[1]) : -1;
    unsigned word = argc == 3 ? (unsigned)strtoul(argv[2], NULL, 16) : 0;
    for (int operation = 0; operation < OPERATIONS; operation++)
        for (int c = 0; c < CONTROLS; c++)
            for (int i = 0; i < NUMBERS; i++) {
                uint64_t sum = 0;
                int alone = operation == only && controls[c] == word;
                for (int j = 0; j < NUMBERS; j++) {
                    x = numbers[i];
                    y = numbers[j];
                    control = controls[c];
                    run(operation);
                    sum = mix(sum, sum_of_result());
                    if (alone)
                        printf("%s %03x: %04x %016llx, %04x %016llx: %04x %016llx %04x %016llx "
                               "stored %016llx flags %lx status %04x\n",
                               names[operation], word, x.top, (unsigned long long)x.significand,
                               y.top, (unsigned long long)y.significand, r.first.top,
                               (unsigned long long)r.first.significand, r.second.top,
                               (unsigned long long)r.second.significand,
                               (unsigned long long)r.stored, r.flags,
                               r.status);
                }
                if (only < 0)
                    printf("%d %s %03x %d %016llx\n", operation, names[operation], controls[c], i,
                           (unsigned long long)sum);
            }
    return 0;
}
