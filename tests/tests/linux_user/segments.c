/* What a program can ask and do about the segments that it has from the beginning. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void ask(uint32_t selector) {
  uint32_t attributes = 0, limit = 0;
  uint8_t has[4];
  __asm__ volatile("lar %2,%0\n\tsetz %1" : "+r"(attributes), "=q"(has[0]) : "r"(selector) : "cc");
  __asm__ volatile("lsl %2,%0\n\tsetz %1" : "+r"(limit), "=q"(has[1]) : "r"(selector) : "cc");
  __asm__ volatile("verr %w1\n\tsetz %0" : "=q"(has[2]) : "r"(selector) : "cc");
  __asm__ volatile("verw %w1\n\tsetz %0" : "=q"(has[3]) : "r"(selector) : "cc");
  printf("%x: %x %x", selector, attributes, limit);
  for (int n = 0; n < 4; n++) printf(" %d", has[n]);
  puts("");
}

int main(void) {
  uint16_t code, stack, data;
  __asm__ volatile("mov %%cs,%0\n\tmov %%ss,%1" : "=r"(code), "=r"(stack));
  ask(0); ask(code); ask(stack); ask(stack & ~3); ask(0xfff8);
  /* SS comes from itself, DS and ES from there, and are themselves again. */
  __asm__ volatile("mov %%ss,%%eax\n\tmov %%eax,%%ss\n\tmov %%ds,%%edx\n\tmov %%eax,%%es\n\tmov %%eax,%%ds\n\t"
                   "mov %%ds,%w0\n\tmov %%edx,%%ds\n\tmov %%edx,%%es" : "=r"(data) : : "eax", "edx");
  printf("%x %x %x\n", code, stack, data);
#ifdef __i386__
  /* Both functions that write a local descriptor; the old one forgets the last flag. */
  for (int function = 1; function <= 0x11; function += 0x10) {
    uint32_t description[4] = {3, 0x12345678, 0xabcde, 1 | 1 << 6};
    long answer = syscall(SYS_modify_ldt, function, description, sizeof description);
    if (answer == 0) ask(3 << 3 | 7);
  }
#endif
  return 0;
}
