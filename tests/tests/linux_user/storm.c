// Signals, processes and threads in quantity: nothing may hang or get lost.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 64
static volatile int queued, sum;
static int turn;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_rwlock_t shared = PTHREAD_RWLOCK_INITIALIZER;
static long counter, waited;

static void on_signal(int number, siginfo_t *info, void *context) {
  queued++;
  sum += info->si_value.sival_int;
}

static void *hammer(void *target) {
  union sigval value = {.sival_int = 1};
  for (int i = 0; i < 250; i++)
    while (pthread_sigqueue(*(pthread_t *)target, SIGRTMIN + 1, value)) sched_yield();
  return 0;
}

// A ring: each thread waits on a futex until it is its turn.
static void *ring(void *argument) {
  int own = (int)(long)argument;
  for (int round = 0; round < 10; round++) {
    for (;;) {
      int now = __atomic_load_n(&turn, __ATOMIC_SEQ_CST);
      if (now % THREADS == own) break;
      syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, now, 0, 0, 0);
    }
    __atomic_add_fetch(&turn, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, THREADS, 0, 0, 0);
  }
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < 200; i++) {
    pthread_mutex_lock(&lock);
    counter++;
    if (counter % 97 == 0) pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    pthread_rwlock_rdlock(&shared);
    pthread_rwlock_unlock(&shared);
  }
  return 0;
}

static void *cancelled(void *argument) {
  for (;;) pause();
}

// Maps, changes protections and signal actions, and has code translated anew, until told to stop.
static volatile int busy = 1;
static void *bustle(void *argument) {
  while (busy) {
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(page, 1, 8192);
    mprotect(page, 4096, PROT_READ);
    munmap(page, 8192);
    signal(SIGRTMIN + 2, SIG_IGN);
    counter += atoi("17") + strlen("a text");
  }
  return 0;
}

static void *add_one(void *argument) {
  ++*(int *)argument;
  return 0;
}

// A child with a thread of its own, made while others of the parent hold whatever they hold.
static int child_of_many(void) {
  pid_t child = fork();
  if (!child) {
    int sum = 4;
    pthread_t thread;
    if (pthread_create(&thread, 0, add_one, &sum) || pthread_join(thread, 0)) _exit(1);
    free(mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? malloc(1) : 0);
    _exit(sum);
  }
  int status;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 5;
}

static void *parent(void *argument) {
  for (int i = 0; i < 30; i++) *(int *)argument += child_of_many();
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 1) return atoi(argv[1]);
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGRTMIN + 1, &action, 0);
  pthread_t self = pthread_self(), threads[THREADS];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, hammer, &self);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
  while (queued < 1000) sched_yield();
  printf("signals %d sum %d\n", queued, sum);

  pthread_barrier_init(&barrier, 0, THREADS);
  for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, ring, (void *)i);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
  printf("turns %d counter %ld\n", turn, counter);
  for (int i = 0; i < 16; i++) pthread_create(&threads[i], 0, cancelled, 0);
  // The library makes each thread change its identity, by a signal.
  printf("identities %d\n", !setgid(getgid()) + !setuid(getuid()));
  for (int i = 0; i < 16; i++) pthread_cancel(threads[i]);
  void *result;
  int ended = 0;
  for (int i = 0; i < 16; i++) ended += !pthread_join(threads[i], &result) && result == PTHREAD_CANCELED;
  printf("cancelled %d\n", ended);

  int right = 0;
  for (int i = 0; i < 40; i++) {
    pid_t child = fork();
    if (!child) {
      char text[8];
      snprintf(text, sizeof text, "%d", i);
      if (i % 2) execl(argv[0], argv[0], text, NULL);
      _exit(i);
    }
    int status;
    right += waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == i;
  }
  printf("children %d\n", right);

  // A signal that comes before a call that does not wait is no reason for the call to fail.
  struct sigaction plain = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
  sigaction(SIGALRM, &plain, 0);
  sigaction(SIGUSR2, &plain, 0);
  int kills = 0;
  for (int i = 0; i < 3000; i++) {
    struct itimerval soon = {.it_value = {.tv_usec = 1 + i % 12}};
    setitimer(ITIMER_REAL, &soon, 0);
    kills += !kill(getpid(), SIGUSR2);
  }
  printf("kills %d\n", kills);

  int children = 0;
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], 0, bustle, 0);
  pthread_create(&threads[3], 0, parent, &children);
  pthread_join(threads[3], 0);
  busy = 0;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
  printf("children of many %d\n", children);
  return 0;
}
