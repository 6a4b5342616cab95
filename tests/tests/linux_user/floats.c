/* Floating-point operations on operands from every corner, as records for the test that knows what
   they must give: operation, width, rounding, flags; three operands; the result. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#pragma STDC FENV_ACCESS ON

enum { ADD, SUB, MUL, DIV, FMA, SQRT, OTHER_WIDTH, TO_I32, TO_I64, FROM_I32, FROM_I64, LESS, EQUAL, RINT, OPERATIONS };

struct record { uint8_t operation, width, rounding, flags, nothing[4]; uint64_t operands[3], result; };

#ifdef __riscv
/* The last is to nearest, ties away, which <fenv.h> does not know. */
static const int roundings[] = {0, 1, 3, 2, 4};
#define SET_ROUNDING(mode) __asm__ volatile("fsrm %0" : : "r"(mode))
#else
static const int roundings[] = {FE_TONEAREST, FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD};
#define SET_ROUNDING(mode) fesetround(mode)
#endif
enum { ROUNDINGS = sizeof roundings / sizeof *roundings };
static const struct { int flag, bit; } flags[5] = {
  {FE_INVALID, 1}, {FE_DIVBYZERO, 2}, {FE_OVERFLOW, 4}, {FE_UNDERFLOW, 8}, {FE_INEXACT, 16}};

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t draw(void) {
  seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17;
  return seed;
}

/* Exponents near each other, near the ends and anywhere; few bits set, or many. */
static uint64_t operand(int bits, uint64_t near) {
  int mantissa = bits == 64 ? 52 : 23, exponents = bits == 64 ? 0x7ff : 0xff;
  uint64_t how = draw(), exponent, fraction = draw(), mask = (1ull << mantissa) - 1;
  switch (how & 7) {
  case 0: exponent = 0; break;
  case 1: exponent = exponents; break;
  case 2: exponent = 1 + (how >> 8) % 3; break;
  case 3: exponent = exponents - 1 - (how >> 8) % 3; break;
  case 4: case 5: exponent = (near >> mantissa) + (how >> 8) % 7 - 3; break;
  default: exponent = exponents / 2 + (how >> 8) % 130 - 65;
  }
  switch (how >> 4 & 7) {
  case 0: fraction = 0; break;
  case 1: fraction = 1ull << fraction % mantissa; break;
  case 2: fraction = mask; break;
  case 3: fraction = mask << fraction % mantissa; break;
  case 4: fraction = near; break;
  }
  return (how >> 40 & 1) << (bits - 1) | (exponent & exponents) << mantissa | (fraction & mask);
}

#define OPERATE(TYPE, OTHER, SQRT_OF, FMA_OF, RINT_OF)                            \
  volatile TYPE a, b, c, r = 0; volatile OTHER other; volatile int64_t integer;   \
  volatile int32_t narrow;                                                        \
  memcpy((void *)&a, &record->operands[0], sizeof a);                             \
  memcpy((void *)&b, &record->operands[1], sizeof b);                             \
  memcpy((void *)&c, &record->operands[2], sizeof c);                             \
  integer = record->operands[0]; narrow = record->operands[0];                    \
  SET_ROUNDING(roundings[record->rounding]);                                      \
  feclearexcept(FE_ALL_EXCEPT);                                                   \
  switch (record->operation) {                                                    \
  case ADD: r = a + b; break;                                                     \
  case SUB: r = a - b; break;                                                     \
  case MUL: r = a * b; break;                                                     \
  case DIV: r = a / b; break;                                                     \
  case FMA: r = FMA_OF(a, b, c); break;                                           \
  case SQRT: r = SQRT_OF(a); break;                                               \
  case OTHER_WIDTH: other = a; break;                                             \
  case TO_I32: narrow = (int32_t)a; break;                                        \
  case TO_I64: integer = (int64_t)a; break;                                       \
  case FROM_I32: r = narrow; break;                                               \
  case FROM_I64: r = integer; break;                                              \
  case LESS: integer = a < b; break;                                              \
  case EQUAL: integer = a == b; break;                                            \
  case RINT: r = RINT_OF(a); break;                                               \
  }                                                                               \
  raised = fetestexcept(FE_ALL_EXCEPT);                                           \
  SET_ROUNDING(FE_TONEAREST);                                                     \
  switch (record->operation) {                                                    \
  case OTHER_WIDTH: memcpy(&record->result, (void *)&other, sizeof other); break; \
  case TO_I32: record->result = (int64_t)narrow; break;                           \
  case TO_I64: case LESS: case EQUAL: record->result = integer; break;            \
  default: memcpy(&record->result, (void *)&r, sizeof r);                         \
  }

static int narrow_operation(struct record *record) {
  int raised;
  OPERATE(float, double, sqrtf, fmaf, rintf)
  return raised;
}

static int wide_operation(struct record *record) {
  int raised;
  OPERATE(double, float, sqrt, fma, rint)
  return raised;
}

int main(void) {
  for (int round = 0; round < 900; round++)
    for (int operation = 0; operation < OPERATIONS; operation++)
      for (int width = 32; width <= 64; width += 32)
        for (int rounding = 0; rounding < ROUNDINGS; rounding++) {
          struct record record = {operation, width, rounding};
          uint64_t *of = record.operands;
          for (int n = 0; n < 3; n++) of[n] = operand(width, n ? of[n - 1] : draw());
          if (operation == FROM_I32 || operation == FROM_I64) of[0] = (int64_t)draw() >> draw() % 64;
          int raised = width == 32 ? narrow_operation(&record) : wide_operation(&record);
          for (int n = 0; n < 5; n++) record.flags |= raised & flags[n].flag ? flags[n].bit : 0;
          if (fwrite(&record, sizeof record, 1, stdout) != 1) return 1;
        }
  return 0;
}
