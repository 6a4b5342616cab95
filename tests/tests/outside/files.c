/* Runs in a guest, in a shared folder: random reads and writes of a file against a copy in memory,
   then what else file systems promise. Prints the first thing that is not so, or "all is well". */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SIZE_MAX_BYTES (300 * 1024)

static char model[SIZE_MAX_BYTES], data[SIZE_MAX_BYTES];
static size_t size;
static uint64_t seed = 88172645463325252u;

static uint64_t below(uint64_t limit)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed % limit;
}

static void check(int good, const char *text, ...)
{
    if (good)
        return;
    va_list list;
    va_start(list, text);
    printf("WRONG (errno %d): ", errno);
    vprintf(text, list);
    printf("\n");
    exit(1);
}

static void random_file(int rounds)
{
    int file = open("random", O_RDWR | O_CREAT | O_TRUNC, 0644);
    check(file >= 0, "create");
    for (int round = 0; round < rounds; round++) {
        size_t at = below(SIZE_MAX_BYTES - 1), count = 1 + below(70000);
        if (at + count > SIZE_MAX_BYTES)
            count = SIZE_MAX_BYTES - at;
        switch (below(8)) {
        case 0: case 1: case 2:
            for (size_t i = 0; i < count; i++)
                model[at + i] = data[i] = below(256);
            check(pwrite(file, data, count, at) == (ssize_t)count, "write %zu at %zu", count, at);
            if (at + count > size)
                size = at + count;
            break;
        case 3: case 4: {
            size_t want = at >= size ? 0 : at + count > size ? size - at : count;
            ssize_t got = pread(file, data, count, at);
            check(got == (ssize_t)want, "round %d: read %zd of %zu at %zu", round, got, want, at);
            check(!memcmp(data, model + at, want), "round %d: data at %zu", round, at);
            break;
        }
        case 5:
            check(!ftruncate(file, at), "truncate");
            if (at < size)
                memset(model + at, 0, size - at);
            size = at;
            break;
        case 6: {
            struct stat status;
            check(!fstat(file, &status) && status.st_size == (off_t)size, "size %ld, not %zu",
                  (long)status.st_size, size);
            break;
        }
        default:
            check(!fsync(file) && !close(file), "close");
            if (below(2))
                check(!rename("random", "other") && !rename("other", "random"), "rename");
            file = open("random", O_RDWR);
            check(file >= 0, "open again");
        }
    }
    ssize_t got = pread(file, data, SIZE_MAX_BYTES, 0);
    check(got == (ssize_t)size && !memcmp(data, model, size), "the whole file at the end");
    if (size) {
        char *map = mmap(0, size, PROT_READ, MAP_PRIVATE, file, 0);
        check(map != MAP_FAILED && !memcmp(map, model, size), "the file in memory");
    }
    close(file);
    check(!unlink("random"), "unlink");
}

static void owners(void)
{
    struct stat status;
    int file = open("owned", O_RDWR | O_CREAT | O_EXCL, 0640);
    check(file >= 0 && write(file, "text", 4) == 4, "create");
    check(open("owned", O_RDWR | O_CREAT | O_EXCL, 0640) < 0 && errno == EEXIST, "exclusive");
    check(!fstat(file, &status) && status.st_mode == (S_IFREG | 0640), "mode %o", status.st_mode);
    check(!fchmod(file, 04755) && !stat("owned", &status) && status.st_mode == (S_IFREG | 04755),
          "chmod: %o", status.st_mode);
    check(!chown("owned", 1234, 4321) && !stat("owned", &status), "chown");
    check(status.st_uid == 1234 && status.st_gid == 4321, "owner %d", status.st_uid);
    check(status.st_mode == (S_IFREG | 0755), "a new owner has no borrowed rights");
    struct timespec times[2] = {{1000000000, 5}, {1100000000, 7}};
    check(!utimensat(AT_FDCWD, "owned", times, 0) && !stat("owned", &status), "utimens");
    check(status.st_mtim.tv_sec == 1100000000 && status.st_atim.tv_sec == 1000000000, "times");
    check(!setxattr("owned", "user.colour", "green", 5, 0), "setxattr");
    check(getxattr("owned", "user.colour", data, 100) == 5 && !memcmp(data, "green", 5), "getxattr");
    check(listxattr("owned", data, 1000) == 12 && !strcmp(data, "user.colour"), "listxattr");
    check(!removexattr("owned", "user.colour"), "removexattr");
    check(getxattr("owned", "user.colour", data, 100) < 0 && errno == ENODATA, "it is gone");
    check(!link("owned", "hard") && !stat("hard", &status) && status.st_nlink == 2, "link");
    check(!unlink("owned") && !stat("hard", &status) && status.st_nlink == 1, "unlink");
    check(status.st_uid == 1234, "the other name has the owner too");
    check(!unlink("hard") && pread(file, data, 10, 0) == 4, "read after unlink");
    close(file);
    check(!symlink("/no/where/at all", "soft"), "symlink");
    check(readlink("soft", data, 100) == 16 && !memcmp(data, "/no/where/at all", 16), "readlink");
    check(!lstat("soft", &status) && S_ISLNK(status.st_mode), "lstat");
    check(open("soft", O_RDONLY) < 0 && errno == ENOENT, "a link to nowhere");
    check(!unlink("soft"), "unlink a link");
    check(!mknod("device", S_IFCHR | 0600, makedev(1, 5)) && !stat("device", &status), "mknod");
    check(S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 5), "a device");
    file = open("device", O_RDONLY);
    check(file >= 0 && read(file, data, 8) == 8 && !memcmp(data, "\0\0\0\0\0\0\0", 8), "zeros");
    close(file);
    check(!unlink("device") && !mkfifo("pipe", 0622) && !unlink("pipe"), "a pipe");
}

static void folders(void)
{
    char name[300];
    check(!mkdir("folder", 0750) && !chdir("folder"), "mkdir");
    for (int i = 0; i < 400; i++) {
        snprintf(name, sizeof name, "a file with a rather long name that is number %d", i);
        int file = open(name, O_CREAT | O_WRONLY, 0600);
        check(file >= 0 && !close(file), "file %d", i);
    }
    static char seen[400];
    DIR *folder = opendir(".");
    int count = 0, number;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (sscanf(entry->d_name, "a file with a rather long name that is number %d", &number) == 1)
            check(!seen[number]++, "%s twice", entry->d_name), count++;
        else
            check(entry->d_name[0] == '.' && strlen(entry->d_name) < 3, "%s", entry->d_name);
    }
    closedir(folder);
    check(count == 400, "%d of 400 files", count);
    check(rmdir("../folder") < 0 && errno == ENOTEMPTY, "it is not empty");
    for (int i = 0; i < 400; i++) {
        snprintf(name, sizeof name, "a file with a rather long name that is number %d", i);
        check(!unlink(name), "unlink %d", i);
    }
    check(!mkdir("deep", 0700) && !mkdir("deep/er", 0700) && !rename("deep", "moved"), "mkdir");
    check(!chdir("moved/er") && !chdir("../..") && !rmdir("moved/er") && !rmdir("moved"), "chdir");
    memset(name, 'n', 256);
    name[256] = 0;
    check(mkdir(name, 0700) < 0 && errno == ENAMETOOLONG, "a name that is too long");
    check(!chdir("..") && !rmdir("folder"), "rmdir");
    struct statfs status;
    check(!statfs(".", &status) && status.f_blocks > 0, "statfs");
}

int main(int count, char **arguments)
{
    check(count > 2 && !chdir(arguments[1]), "chdir");
    random_file(atoi(arguments[2]));
    owners();
    folders();
    printf("all is well\n");
    return 0;
}
