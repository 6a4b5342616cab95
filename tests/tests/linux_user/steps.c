/* Where the trap flag stops a program: after each element of a repeated string instruction, and not
   between the load of a stack segment and the instruction behind it. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#ifdef __x86_64__
#define REGISTER(name) REG_R##name
#define WIDE "r"
#define FLAGS "pushfq\n\torl $0x100,(%%rsp)\n\tpopfq\n\t"
#define NO_FLAGS "pushfq\n\tandl $~0x100,(%%rsp)\n\tpopfq\n\t"
#else
#define REGISTER(name) REG_E##name
#define WIDE "e"
#define FLAGS "pushfl\n\torl $0x100,(%%esp)\n\tpopfl\n\t"
#define NO_FLAGS "pushfl\n\tandl $~0x100,(%%esp)\n\tpopfl\n\t"
#endif

static struct { uintptr_t pc, count, to; } seen[100];
static volatile unsigned steps;
static char from[16] = "abcabdabc", to[16] = "abcabc";

static void trapped(int signal, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  if (steps == 100) return;
  seen[steps].pc = registers[REGISTER(IP)];
  seen[steps].count = registers[REGISTER(CX)];
  seen[steps++].to = registers[REGISTER(DI)] - (uintptr_t)to;
}

/* One instruction, or a few, with the trap flag set. */
#define STEPS(name, code, n)                                                             \
  do {                                                                                   \
    uintptr_t count = n;                                                                 \
    char *source = from, *target = to;                                                   \
    uint16_t stack;                                                                      \
    __asm__ volatile("mov %%ss,%0" : "=r"(stack));                                       \
    steps = 0;                                                                           \
    __asm__ volatile(FLAGS #name ": " code "\n\t nop\n\t" NO_FLAGS                       \
                     : "+c"(count), "+S"(source), "+D"(target)                           \
                     : "a"(stack) : "memory", "cc");                                     \
    extern char name[];                                                                  \
    for (unsigned i = 0; i < steps; i++)                                                 \
      printf(#name " %d: pc %d, count %d, to %d\n", i, (int)(seen[i].pc - (uintptr_t)name), \
             (int)seen[i].count, (int)seen[i].to);                                       \
  } while (0)

int main(void) {
  struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
  sigaction(SIGTRAP, &action, 0);
  STEPS(compare, "repe cmpsb", 9);
  STEPS(scan, "repne scasb", 2);
  STEPS(move, "rep movsb", 3);
  STEPS(store, "rep stosw", 2);
  STEPS(nothing, "rep movsb", 0);
  STEPS(load, "rep lodsb\n\tinc %%" WIDE "cx", 1);
  STEPS(switched, "mov %%ax,%%ss\n\tinc %%" WIDE "cx\n\tdec %%" WIDE "cx", 0);
  printf("%s %s\n", from, to);
  return 0;
}
