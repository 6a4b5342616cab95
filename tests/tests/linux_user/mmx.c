/* What instructions with MMX registers give, and an old one besides: a line for each, of its name, operands and result. */
#include <stdint.h>
#include <stdio.h>

static uint64_t state = 88172645463325252;

static uint64_t random64(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    /* Often what saturates, shifts and shuffles find interesting. */
    switch (state >> 60) {
    case 0: return state & 63;
    case 1: return 0x7fff80007f80ff00 ^ (state & 0x0101010101010101);
    case 2: return state & 0x8f8f8f8f8f8f8f8f;
    default: return state;
    }
}

typedef struct {
    uint64_t low, high;
} __attribute__((aligned(16))) wide;

static void say(const char *name, uint64_t a, uint64_t b, uint64_t low, uint64_t high) {
    printf("%s %016llx %016llx: %016llx %016llx\n", name, (unsigned long long)a, (unsigned long long)b,
           (unsigned long long)low, (unsigned long long)high);
}

#define ROUNDS for (int i = 0; i < 40; i++)

/* With a register, and with memory. */
#define BINARY(name)                                                                          \
    ROUNDS {                                                                                  \
        uint64_t a = random64(), b = random64(), r, m;                                        \
        __asm__ volatile("movq %2, %%mm0; movq %3, %%mm5; " name " %%mm5, %%mm0; movq %%mm0, %0; " \
                         "movq %2, %%mm1; " name " %3, %%mm1; movq %%mm1, %1; emms"             \
                         : "=m"(r), "=m"(m) : "m"(a), "m"(b));                                 \
        say(name, a, b, r, m);                                                                \
    }
#define BY_CONSTANT(name, constant)                                                           \
    ROUNDS {                                                                                  \
        uint64_t a = random64(), b = random64(), r;                                           \
        __asm__ volatile("movq %1, %%mm0; movq %2, %%mm5; " name " $" #constant               \
                         ", %%mm0; movq %%mm0, %0; emms" : "=m"(r) : "m"(a), "m"(b));          \
        say(name " " #constant, a, b, r, 0);                                                  \
    }
#define BINARY_BY_CONSTANT(name, constant)                                                    \
    ROUNDS {                                                                                  \
        uint64_t a = random64(), b = random64(), r;                                           \
        __asm__ volatile("movq %1, %%mm0; movq %2, %%mm5; " name " $" #constant               \
                         ", %%mm5, %%mm0; movq %%mm0, %0; emms" : "=m"(r) : "m"(a), "m"(b));   \
        say(name " " #constant, a, b, r, 0);                                                  \
    }
#define TO_GENERAL(text)                                                                      \
    ROUNDS {                                                                                  \
        uint64_t a = random64(), r;                                                           \
        __asm__ volatile("movq %1, %%mm3; xor %0, %0; " text "; emms" : "=&r"(r) : "m"(a));    \
        say(text, a, 0, r, 0);                                                                \
    }
#define TO_XMM(name)                                                                          \
    ROUNDS {                                                                                  \
        uint64_t a = random64();                                                              \
        wide r = {random64(), random64()}, old = r;                                           \
        __asm__ volatile("movq %1, %%mm2; movdqa %0, %%xmm1; " name " %%mm2, %%xmm1; "         \
                         "movdqa %%xmm1, %0; emms" : "+m"(r) : "m"(a) : "xmm1");              \
        say(name, a, old.high, r.low, r.high);                                                \
    }
#define FROM_XMM(name)                                                                        \
    ROUNDS {                                                                                  \
        wide a = {random64(), random64()};                                                    \
        if (i & 1) a.low = 0x447a0000c2c80000, a.high = 0x40934a0000000000;                   \
        uint64_t r, flags = 0x1f80;                                                           \
        __asm__ volatile("ldmxcsr %1; movdqa %2, %%xmm1; " name " %%xmm1, %%mm7; movq %%mm7, %0; " \
                         "stmxcsr %1; emms" : "=m"(r), "+m"(flags) : "m"(a) : "xmm1");          \
        say(name, a.low, a.high, r, flags);                                                   \
    }

int main(void) {
    BINARY("pand") BINARY("pandn") BINARY("por") BINARY("pxor")
    BINARY("paddb") BINARY("paddw") BINARY("paddd") BINARY("paddq")
    BINARY("psubb") BINARY("psubw") BINARY("psubd") BINARY("psubq")
    BINARY("paddsb") BINARY("paddsw") BINARY("paddusb") BINARY("paddusw")
    BINARY("psubsb") BINARY("psubsw") BINARY("psubusb") BINARY("psubusw")
    BINARY("pmullw") BINARY("pmulhw") BINARY("pmulhuw") BINARY("pmuludq") BINARY("pmaddwd")
    BINARY("pcmpeqb") BINARY("pcmpeqw") BINARY("pcmpeqd")
    BINARY("pcmpgtb") BINARY("pcmpgtw") BINARY("pcmpgtd")
    BINARY("packsswb") BINARY("packssdw") BINARY("packuswb")
    BINARY("punpcklbw") BINARY("punpcklwd") BINARY("punpckldq")
    BINARY("punpckhbw") BINARY("punpckhwd") BINARY("punpckhdq")
    BINARY("psllw") BINARY("pslld") BINARY("psllq") BINARY("psrlw") BINARY("psrld") BINARY("psrlq")
    BINARY("psraw") BINARY("psrad")
    BINARY("pavgb") BINARY("pavgw") BINARY("pminub") BINARY("pminsw") BINARY("pmaxub") BINARY("pmaxsw")
    BINARY("psadbw") BINARY("pabsb") BINARY("pabsw") BINARY("pabsd")
    BINARY("psignb") BINARY("psignw") BINARY("psignd") BINARY("pshufb") BINARY("pmulhrsw") BINARY("pmaddubsw")
    BINARY("phaddw") BINARY("phaddd") BINARY("phaddsw") BINARY("phsubw") BINARY("phsubd") BINARY("phsubsw")
    BY_CONSTANT("psllw", 3) BY_CONSTANT("pslld", 31) BY_CONSTANT("psllq", 64) BY_CONSTANT("psrlw", 15)
    BY_CONSTANT("psrld", 1) BY_CONSTANT("psrlq", 63) BY_CONSTANT("psraw", 16) BY_CONSTANT("psrad", 200)
    BINARY_BY_CONSTANT("pshufw", 0x1b) BINARY_BY_CONSTANT("pshufw", 0xc9)
    BINARY_BY_CONSTANT("palignr", 0) BINARY_BY_CONSTANT("palignr", 5) BINARY_BY_CONSTANT("palignr", 11)
    BINARY_BY_CONSTANT("palignr", 16)
    TO_GENERAL("pmovmskb %%mm3, %k0") TO_GENERAL("pextrw $2, %%mm3, %k0") TO_GENERAL("pextrw $7, %%mm3, %k0")
    TO_GENERAL("movd %%mm3, %k0")
    TO_XMM("cvtpi2ps") TO_XMM("cvtpi2pd") TO_XMM("movq2dq")
    FROM_XMM("cvtps2pi") FROM_XMM("cvttps2pi") FROM_XMM("cvtpd2pi") FROM_XMM("cvttpd2pi") FROM_XMM("movdq2q")
    ROUNDS {
        uint64_t a = random64(), b = random64(), place[2] = {1, 2}, r, number = random64();
        __asm__ volatile("movq %1, %%mm0; movq %2, %%mm1; maskmovq %%mm1, %%mm0; "
                         "pinsrw $5, %k4, %%mm0; movntq %%mm0, %0; emms"
                         : "=m"(r) : "m"(a), "m"(b), "D"(place), "r"(number) : "memory");
        say("maskmovq", a, b, place[0], r);
    }
#ifdef __i386__
    ROUNDS {
        uint16_t a = random64(), b = random64(), old = a;
        uint8_t zero;
        __asm__ volatile("arpl %2, %0; setz %1" : "+m"(a), "=qm"(zero) : "r"(b) : "cc");
        say("arpl", old, b, a, zero);
    }
#endif
    /* Any of them makes all registers valid. */
    struct {
        uint32_t control, status, tags, rest[4];
    } environment;
    __asm__ volatile("fninit; movq %%mm1, %%mm1; fnstenv %0; emms" : "=m"(environment));
    printf("tags %x top %x\n", environment.tags & 0xffff, environment.status >> 11 & 7);
    uint64_t out;
    __asm__ volatile("fninit; fld1; movq %%mm1, %1; fnstenv %0; emms" : "=m"(environment), "=m"(out));
    printf("top %x\n", environment.status >> 11 & 7);
    return 0;
}
