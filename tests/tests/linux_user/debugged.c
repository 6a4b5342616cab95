// A program to look at with gdb.
#include <pthread.h>
#include <stdio.h>
#include <signal.h>
#include <unistd.h>
volatile int counter; double d = 1.5;
int add(int a, int b) { return a + b; }
void *work(void *x) { for (int i = 0; i < 3; i++) counter += add(i, 1); pause(); return 0; }
void handler(int s) { counter = 100; }
int main(int argc, char **argv) {
  signal(SIGUSR1, handler);
  int r = add(2, 3);
  d += r;
  pthread_t t; pthread_create(&t, 0, work, 0);
  while (counter < 6) usleep(1000);
  raise(SIGUSR1);
  printf("%d %d %f\n", r, counter, d);
  return 7;
}
