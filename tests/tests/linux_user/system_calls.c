// System calls, each with a line that says whether it does what the manual says.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <utime.h>
#define OK(c) printf("%s: %s\n", #c, (c) ? "yes" : "NO")
static volatile int got, value, code; static void *place;
static void count(int s) { got++; }
static void info(int s, siginfo_t *i, void *u) { got++; value = i->si_value.sival_int; code = i->si_code; }
static void fault(int s, siginfo_t *i, void *u) { place = i->si_addr;
  ucontext_t *c = u; (void)c;
#if defined(__i386__)
  c->uc_mcontext.gregs[REG_EIP] += 2; code = c->uc_mcontext.gregs[REG_ERR];
#elif defined(__x86_64__)
  c->uc_mcontext.gregs[REG_RIP] += 2; code = c->uc_mcontext.gregs[REG_ERR];
#endif
}
static pthread_mutex_t *robust;
static void *die(void *a) { pthread_mutex_lock(robust); return 0; }
int main(void) { setvbuf(stdout, 0, _IOLBF, 0);
  char name[] = "/tmp/hostel-sys-XXXXXX"; OK(mkdtemp(name) != 0); OK(chdir(name) == 0);
  int f = open("file", O_RDWR | O_CREAT | O_CLOEXEC | O_LARGEFILE, 0640); OK(f >= 0);
  struct iovec v[2] = {{"hello ", 6}, {"world\n", 6}}; OK(writev(f, v, 2) == 12);
  struct stat st; OK(fstat(f, &st) == 0 && st.st_size == 12 && st.st_nlink == 1 && (st.st_mode & 07777) == 0640);
  OK(stat("file", &st) == 0 && st.st_uid == getuid() && st.st_mtime > 1600000000);
  OK(lseek(f, 5LL, SEEK_SET) == 5); char b[64] = {0}; OK(read(f, b, 3) == 3 && !strcmp(b, " wo"));
  OK(pwrite(f, "X", 1, 3) == 1 && pread(f, b, 4, 2) == 4 && b[1] == 'X');
  OK(ftruncate(f, 5000) == 0 && fstat(f, &st) == 0 && st.st_size == 5000);
#ifdef __i386__
  OK(lseek64(f, 6LL << 30, SEEK_SET) == 6LL << 30 && ftruncate64(f, 5LL << 30) == 0);
  struct stat64 s6; OK(fstat64(f, &s6) == 0 && s6.st_size == 5LL << 30);
  OK(pwrite64(f, "Y", 1, (5LL << 30) - 1) == 1 && pread64(f, b, 1, (5LL << 30) - 1) == 1 && b[0] == 'Y');
  struct flock64 l6 = {F_WRLCK, SEEK_SET, 5LL << 30, 10}; OK(fcntl(f, F_SETLK64, &l6) == 0);
  errno = 0; OK(syscall(SYS_fstat, f, &st) == -1 && errno == EOVERFLOW);
#endif
  OK(posix_fallocate(f, 0, 100) == 0); OK(posix_fadvise(f, 0, 100, 1) == 0);
  struct flock l = {F_WRLCK, SEEK_SET, 0, 10}; OK(fcntl(f, F_SETLK, &l) == 0); l.l_type = F_RDLCK; OK(fcntl(f, F_GETLK, &l) == 0 && l.l_type == F_UNLCK);
  OK(fcntl(f, F_GETFL) & O_RDWR); OK(fcntl(f, F_GETFD) == FD_CLOEXEC); OK(flock(f, LOCK_EX) == 0);
  struct statfs fs; OK(fstatfs(f, &fs) == 0 && fs.f_bsize >= 512); struct statvfs vfs; OK(statvfs("/", &vfs) == 0 && vfs.f_bsize >= 512);
  OK(mkdir("d", 0755) == 0 && symlink("file", "link") == 0 && readlink("link", b, 64) == 4);
  int n = 0; DIR *d = opendir("."); struct dirent *e; while ((e = readdir(d))) n += !strcmp(e->d_name, "file") + !strcmp(e->d_name, "d") + !strcmp(e->d_name, "link"); closedir(d); OK(n == 3);
  char db[4096]; int dir = open(".", O_RDONLY | O_DIRECTORY); OK(syscall(SYS_getdents64, dir, db, sizeof db) > 50);
#ifdef SYS_getdents
  lseek(dir, 0, SEEK_SET); long dn = syscall(SYS_getdents, dir, db, sizeof db); n = 0; for (long o = 0; o < dn; o += *(unsigned short *)(db + o + 2 * sizeof(long))) { char *nm = db + o + 2 * sizeof(long) + 2; n += !strcmp(nm, "file") + !strcmp(nm, "d"); } OK(n == 2);
#endif
  struct statx sx; OK(statx(dir, "file", 0, STATX_ALL, &sx) == 0 && sx.stx_nlink == 1);
  struct utimbuf ut = {1000, 2000}; OK(utime("file", &ut) == 0 && stat64("file", (void *)db) == 0 && ((struct stat64 *)db)->st_mtime == 2000);
  struct timeval tv2[2] = {{3000, 0}, {4000, 500}}; OK(utimes("file", tv2) == 0);
  struct timespec ts2[2] = {{5000, 7}, {6000, 8}}; OK(utimensat(AT_FDCWD, "file", ts2, 0) == 0 && stat64("file", (void *)db) == 0 && ((struct stat64 *)db)->st_mtim.tv_nsec == 8);
  OK(faccessat(AT_FDCWD, "file", R_OK, 0) == 0 && access("nothing", F_OK) == -1 && errno == ENOENT);
  int out = open("copy", O_RDWR | O_CREAT, 0600); off_t off = 0; OK(sendfile(out, f, &off, 12) == 12 && off == 12);
  void *m = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, out, 0); OK(m != MAP_FAILED && ((char *)m)[0] == 'h'); OK(msync(m, 4096, MS_SYNC) == 0);
  m = mremap(m, 8192, 1 << 20, MREMAP_MAYMOVE); OK(m != MAP_FAILED && ((char *)m)[1] == 'e' && munmap(m, 1 << 20) == 0);
  int sv[2]; OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
  union { char c[CMSG_SPACE(2 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))]; struct cmsghdr h; } cb; struct iovec one = {"msg", 3};
  struct msghdr mh = {0, 0, &one, 1, cb.c, CMSG_SPACE(2 * sizeof(int)), 0}; struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
  c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(2 * sizeof(int)); ((int *)CMSG_DATA(c))[0] = f; ((int *)CMSG_DATA(c))[1] = dir;
  int yes = 1; OK(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) == 0);
  OK(sendmsg(sv[0], &mh, 0) == 3); memset(&cb, 0, sizeof cb); mh.msg_controllen = sizeof cb.c; char rb[8]; one.iov_base = rb; one.iov_len = 8;
  OK(recvmsg(sv[1], &mh, 0) == 3 && !memcmp(rb, "msg", 3)); int fds = 0, cred = 0;
  for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) { if (c->cmsg_type == SCM_RIGHTS) { struct stat64 a1; fds = fstat64(((int *)CMSG_DATA(c))[0], &a1) == 0 && c->cmsg_len == CMSG_LEN(8); } if (c->cmsg_type == SCM_CREDENTIALS) cred = ((struct ucred *)CMSG_DATA(c))->pid == getpid(); }
  OK(fds); OK(cred); OK((mh.msg_flags & MSG_CTRUNC) == 0);
  struct timeval rt = {0, 20000}, rt2; socklen_t rl = sizeof rt2; OK(setsockopt(sv[1], SOL_SOCKET, SO_RCVTIMEO, &rt, sizeof rt) == 0 && getsockopt(sv[1], SOL_SOCKET, SO_RCVTIMEO, &rt2, &rl) == 0 && rl == sizeof rt2 && rt2.tv_usec >= 20000);
  OK(recv(sv[1], rb, 8, 0) == -1 && errno == EAGAIN); int avail; OK(send(sv[0], "abcd", 4, 0) == 4 && ioctl(sv[1], FIONREAD, &avail) == 0 && avail == 4);
  struct pollfd pf = {sv[1], POLLIN, 0}; OK(poll(&pf, 1, 100) == 1); struct timespec pt = {0, 1000000}; OK(ppoll(&pf, 1, &pt, 0) == 1);
  fd_set rs; FD_ZERO(&rs); FD_SET(sv[1], &rs); struct timeval stv = {1, 0}; OK(select(sv[1] + 1, &rs, 0, 0, &stv) == 1); OK(pselect(sv[1] + 1, &rs, 0, 0, &pt, 0) == 1);
  int ep = epoll_create1(0); struct epoll_event ev = {EPOLLIN, {.u64 = 0x1122334455667788ULL}}, eo[4]; OK(epoll_ctl(ep, EPOLL_CTL_ADD, sv[1], &ev) == 0 && epoll_wait(ep, eo, 4, 100) == 1 && eo[0].data.u64 == 0x1122334455667788ULL);
  int evfd = eventfd(3, 0); unsigned long long ctr; OK(read(evfd, &ctr, 8) == 8 && ctr == 3);
  int tfd = timerfd_create(CLOCK_MONOTONIC, 0); struct itimerspec its = {{0, 0}, {0, 1000000}}; OK(timerfd_settime(tfd, 0, &its, 0) == 0 && read(tfd, &ctr, 8) == 8 && ctr == 1);
  struct mmsghdr mm[2]; memset(mm, 0, sizeof mm); struct iovec mv[2] = {{"1", 1}, {"22", 2}}; for (int i = 0; i < 2; i++) { mm[i].msg_hdr.msg_iov = &mv[i]; mm[i].msg_hdr.msg_iovlen = 1; }
  int dg[2]; socketpair(AF_UNIX, SOCK_DGRAM, 0, dg); OK(sendmmsg(dg[0], mm, 2, 0) == 2 && mm[1].msg_len == 2); char r0[4], r1[4]; mv[0].iov_base = r0; mv[1].iov_base = r1; mv[0].iov_len = mv[1].iov_len = 4; OK(recvmmsg(dg[1], mm, 2, 0, 0) == 2 && mm[1].msg_len == 2 && r1[0] == '2');
  struct sigaction sa; memset(&sa, 0, sizeof sa); sa.sa_handler = count; sigaction(SIGALRM, &sa, 0); struct itimerval it = {{0, 0}, {0, 5000}}; OK(setitimer(ITIMER_REAL, &it, 0) == 0); got = 0; pause(); OK(got == 1);
  int pp[2]; pipe(pp); sa.sa_flags = 0; sigaction(SIGALRM, &sa, 0); setitimer(ITIMER_REAL, &it, 0); OK(read(pp[0], rb, 1) == -1 && errno == EINTR);
  sa.sa_flags = SA_RESTART; sigaction(SIGALRM, &sa, 0); got = 0; if (!fork()) { usleep(40000); write(pp[1], "z", 1); _exit(7); } setitimer(ITIMER_REAL, &it, 0); OK(read(pp[0], rb, 1) == 1 && got == 1);
  int status; struct rusage ru; OK(wait4(-1, &status, 0, &ru) > 0 && WEXITSTATUS(status) == 7 && ru.ru_maxrss > 0);
  siginfo_t si; if (!fork()) _exit(9); OK(waitid(P_ALL, 0, &si, WEXITED) == 0 && si.si_status == 9 && si.si_code == CLD_EXITED && si.si_signo == SIGCHLD);
  memset(&sa, 0, sizeof sa); sa.sa_sigaction = info; sa.sa_flags = SA_SIGINFO; sigaction(SIGRTMIN + 2, &sa, 0); union sigval sg = {.sival_int = 4711}; got = 0; OK(sigqueue(getpid(), SIGRTMIN + 2, sg) == 0 && got == 1 && value == 4711 && code == SI_QUEUE);
  sigset_t bl, old, pend; sigemptyset(&bl); sigaddset(&bl, SIGRTMIN + 2); sigprocmask(SIG_BLOCK, &bl, &old); got = 0; for (int i = 0; i < 50; i++) { sg.sival_int = i; sigqueue(getpid(), SIGRTMIN + 2, sg); } sigpending(&pend); OK(sigismember(&pend, SIGRTMIN + 2) && got == 0);
  struct timespec zero = {0, 0}; OK(sigtimedwait(&bl, &si, &zero) == SIGRTMIN + 2 && si.si_value.sival_int == 0); sigprocmask(SIG_SETMASK, &old, 0); OK(got == 49 && value == 49);
  sigprocmask(SIG_BLOCK, &bl, 0); got = 0; sg.sival_int = 5; sigqueue(getpid(), SIGRTMIN + 2, sg); struct timespec long_time = {5, 0}; OK(ppoll(0, 0, &long_time, &old) == -1 && errno == EINTR && got == 1); sigqueue(getpid(), SIGRTMIN + 2, sg); OK(sigsuspend(&old) == -1 && got == 2); OK(pselect(0, 0, 0, 0, &zero, &bl) == 0); sigqueue(getpid(), SIGRTMIN + 2, sg); OK(epoll_pwait(epoll_create(1), eo, 1, 5000, &old) == -1 && errno == EINTR && got == 3);
  int sf = signalfd(-1, &bl, 0); struct signalfd_siginfo ssi; sigqueue(getpid(), SIGRTMIN + 2, sg); OK(read(sf, &ssi, sizeof ssi) == sizeof ssi && ssi.ssi_int == 5); sigprocmask(SIG_SETMASK, &old, 0);
  timer_t ti; struct sigevent se; memset(&se, 0, sizeof se); se.sigev_notify = SIGEV_SIGNAL; se.sigev_signo = SIGRTMIN + 2; se.sigev_value.sival_int = 99; its.it_value.tv_nsec = 1000000; got = 0; OK(timer_create(CLOCK_MONOTONIC, &se, &ti) == 0 && timer_settime(ti, 0, &its, 0) == 0); while (!got) usleep(1000); OK(value == 99 && code == SI_TIMER && timer_delete(ti) == 0);
  sa.sa_sigaction = fault; sigaction(SIGSEGV, &sa, 0); got = 0; 
#if defined(__i386__) || defined(__x86_64__)
  __asm__ volatile("movb %%al, (%0)" :: "r"((void *)0x10)); OK(place == (void *)0x10 && code == 6);
#endif
  sa.sa_sigaction = info; sigaction(SIGSEGV, &sa, 0); got = 0; raise(SIGSEGV); OK(got == 1); signal(SIGSEGV, SIG_DFL);
  if (!fork()) { raise(SIGSEGV); _exit(1); } wait(&status); OK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  if (!fork()) { abort(); } wait(&status); OK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  int id = semget(IPC_PRIVATE, 2, 0600); unsigned short vals[2] = {3, 4}; OK(semctl(id, 0, SETALL, vals) == 0 && semctl(id, 1, GETVAL) == 4); struct semid_ds sd; OK(semctl(id, 0, IPC_STAT, &sd) == 0 && sd.sem_nsems == 2); struct sembuf so = {0, -1, 0}; OK(semop(id, &so, 1) == 0 && semctl(id, 0, GETVAL) == 2); semctl(id, 0, IPC_RMID);
  id = shmget(IPC_PRIVATE, 10000, 0600); char *sh = shmat(id, 0, 0); OK(sh != (void *)-1); struct shmid_ds hd; OK(shmctl(id, IPC_STAT, &hd) == 0 && hd.shm_segsz == 10000 && hd.shm_nattch == 1); if (!fork()) { strcpy(sh, "shared"); _exit(0); } wait(0); OK(!strcmp(sh, "shared") && shmdt(sh) == 0); shmctl(id, IPC_RMID, 0);
  id = msgget(IPC_PRIVATE, 0600); struct { long t; char x[16]; } mg = {42, "queued"}; OK(msgsnd(id, &mg, 7, 0) == 0); mg.t = 0; mg.x[0] = 0; OK(msgrcv(id, &mg, 16, 0, 0) == 7 && mg.t == 42 && !strcmp(mg.x, "queued")); struct msqid_ds qd; OK(msgctl(id, IPC_STAT, &qd) == 0 && qd.msg_qnum == 0 && qd.msg_lrpid == getpid()); msgctl(id, IPC_RMID, 0);
  struct rlimit rlim; OK(getrlimit(RLIMIT_NOFILE, &rlim) == 0 && rlim.rlim_cur > 10); rlim.rlim_cur = 500; OK(setrlimit(RLIMIT_NOFILE, &rlim) == 0 && getrlimit(RLIMIT_NOFILE, &rlim) == 0 && rlim.rlim_cur == 500);
  struct sysinfo sy; OK(sysinfo(&sy) == 0 && sy.totalram > 0 && sy.mem_unit >= 1 && sy.procs > 0); struct tms tm; OK(times(&tm) != -1); struct timespec ck; OK(clock_gettime(CLOCK_REALTIME, &ck) == 0 && ck.tv_sec > 1600000000 && time(0) - ck.tv_sec <= 1); struct timeval gt; OK(gettimeofday(&gt, 0) == 0 && gt.tv_sec - ck.tv_sec <= 1); struct timespec ns = {0, 1000}; OK(nanosleep(&ns, 0) == 0 && clock_nanosleep(CLOCK_MONOTONIC, 0, &ns, 0) == 0); OK(clock_getres(CLOCK_MONOTONIC, &ck) == 0 && ck.tv_nsec == 1);
  cpu_set_t cs; OK(sched_getaffinity(0, sizeof cs, &cs) == 0 && CPU_COUNT(&cs) >= 1); char pn[16]; OK(prctl(PR_SET_NAME, "guest") == 0 && prctl(PR_GET_NAME, pn) == 0 && !strcmp(pn, "guest"));
  gid_t gr[64]; OK(getgroups(64, gr) >= 0); uid_t u1, u2, u3; OK(getresuid(&u1, &u2, &u3) == 0 && u2 == geteuid()); OK(getpriority(PRIO_PROCESS, 0) == 0 && nice(3) == 3);
  int pt2 = posix_openpt(O_RDWR); struct winsize ws = {10, 20}; OK(ioctl(pt2, TIOCSWINSZ, &ws) == 0 && ioctl(pt2, TIOCGWINSZ, &ws) == 0 && ws.ws_col == 20); struct termios te; OK(tcgetattr(pt2, &te) == 0 && (te.c_lflag & ECHO)); errno = 0; OK(ioctl(pt2, 0xdeadbeef, 0) == -1 && errno == ENOTTY);
  errno = 0; OK(syscall(425, 1, 0) == -1 && errno == ENOSYS); errno = 0; OK(syscall(435, 0, 0) == -1 && (errno == ENOSYS || errno == EINVAL)); 
  robust = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0); pthread_mutexattr_t ra; pthread_mutexattr_init(&ra); pthread_mutexattr_setrobust(&ra, PTHREAD_MUTEX_ROBUST); pthread_mutexattr_setpshared(&ra, 1); pthread_mutex_init(robust, &ra); pthread_t th; pthread_create(&th, 0, die, 0); pthread_join(th, 0); OK(pthread_mutex_lock(robust) == EOWNERDEAD && pthread_mutex_consistent(robust) == 0);
  pthread_mutex_unlock(robust); if (!fork()) { pthread_mutex_lock(robust); _exit(0); } wait(0); OK(pthread_mutex_lock(robust) == EOWNERDEAD);
  OK(syscall(SYS_openat, AT_FDCWD, "file", O_RDONLY | O_LARGEFILE) >= 0); unlink("file"); unlink("link"); unlink("copy"); rmdir("d"); OK(chdir("/") == 0 && rmdir(name) == 0);
  char exe[256]; n = readlink("/proc/self/exe", exe, 255); OK(n > 0 && exe[n - 1] != 'l'); 
  return 0;
}
