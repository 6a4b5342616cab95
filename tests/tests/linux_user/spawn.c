/* Children that share their parent's memory until they become another program. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char **environment;
static volatile int handled;

static void handler(int signal) { handled = signal; }

/* The exit status of this program run with an argument, or -errno. */
static int spawn(const char *path) {
    char *arguments[] = {(char *)path, "child", 0};
    posix_spawnattr_t how;
    sigset_t all;
    pid_t pid;
    int status;
    posix_spawnattr_init(&how);
    sigfillset(&all);
    posix_spawnattr_setsigdefault(&how, &all);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGDEF);
    int error = posix_spawn(&pid, path, 0, &how, arguments, environment);
    posix_spawnattr_destroy(&how);
    if (error) return -error;
    if (waitpid(pid, &status, 0) != pid) return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void *spawn_many(void *path) {
    long good = 0;
    for (int i = 0; i < 40; i++) good += spawn(path) == 7;
    for (int i = 0; i < 10; i++) good += spawn("/does/not/exist") == -ENOENT;
    return (void *)good;
}

int main(int count, char **words, char **own_environment) {
    environment = own_environment;
    if (count > 1) return signal(SIGUSR1, SIG_IGN) == SIG_DFL ? 7 : 8;
    printf("first descriptor %d\n", open("/dev/null", O_RDONLY | O_CLOEXEC));
    signal(SIGUSR1, handler);
    printf("missing %d\n", spawn("/does/not/exist") == -ENOENT);
    printf("status %d\n", spawn(words[0]));

    volatile int written = 0;
    pid_t child = vfork();
    if (child == 0) {
        signal(SIGUSR1, SIG_IGN);
        written = 5;
        _exit(3);
    }
    int status;
    waitpid(child, &status, 0);
    raise(SIGUSR1);
    printf("written %d status %d handled %d\n", written, WEXITSTATUS(status), handled == SIGUSR1);

    handled = 0;
    child = vfork();
    if (child == 0) {
        raise(SIGUSR1); /* the handler is the child's, its variable is both's */
        written = handled == SIGUSR1;
        kill(getpid(), SIGKILL);
        _exit(0);
    }
    waitpid(child, &status, 0);
    printf("written %d killed %d\n", written, WTERMSIG(status));

    pthread_t threads[4];
    long good = 0;
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, spawn_many, words[0]);
    for (int i = 0; i < 4; i++) {
        void *of_one;
        pthread_join(threads[i], &of_one);
        good += (long)of_one;
    }
    printf("good %ld\n", good);
    return 0;
}
