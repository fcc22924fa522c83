/* Directories, the lock that keeps two nodes from one data directory, and the secret. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "node/super/inside.h"

bool files_directory(str path, struct arena *a)
{
    char *z = (char *)arena_dup(a, path).p;
    for (char *p = z + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (mkdir(z, 0755) < 0 && errno != EEXIST)
            return false;
        *p = '/';
    }
    return mkdir(z, 0700) == 0 || errno == EEXIST;
}

err files_directories(const struct conf *c, str *problem, struct arena *a)
{
    const struct conf_text paths[] = {c->node_data_dir, c->node_run_dir};
    for (size_t i = 0; i < array_len(paths); i++) {
        str path = conf_text(c, paths[i]);
        if (files_directory(path, a) && access(path.p, W_OK | X_OK) == 0)
            continue;
        *problem = arena_printf(a, "%s: %s. Choose another with node.%s", path.p, strerror(errno),
                                i == 0 ? "data_dir" : "run_dir");
        return ERR_IO;
    }
    return ERR_OK;
}

/* "4711 1789000000": who holds the lock, since when. */
static str holder(int fd, str directory, struct arena *a)
{
    char text[64] = "", since[16] = "?";
    long long started = 0;
    int pid = 0;
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n > 0)
        sscanf(text, "%d %lld", &pid, &started);
    time_t t = (time_t)started;
    struct tm tm;
    if (localtime_r(&t, &tm))
        strftime(since, sizeof since, "%H:%M", &tm);
    return arena_printf(a, "%s is in use by the node started %s (pid %d)", directory.p, since, pid);
}

err files_lock(struct super *s, str *problem, struct arena *a)
{
    str directory = conf_text(s->conf, s->conf->node_data_dir);
    const char *path = arena_printf(a, "%s/lock", directory.p).p;
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0) {
        *problem = arena_printf(a, "%s: %s", path, strerror(errno));
        return ERR_IO;
    }
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        *problem = holder(s->lock_fd, directory, a);
        return ERR_EXISTS;
    }
    char text[64];
    int n = snprintf(text, sizeof text, "%d %lld\n", (int)getpid(), (long long)time(NULL));
    if (ftruncate(s->lock_fd, 0) < 0 || pwrite(s->lock_fd, text, (size_t)n, 0) != n) {
        *problem = arena_printf(a, "%s: %s", path, strerror(errno));
        return ERR_IO;
    }
    return ERR_OK;
}

static bool from_hex(const char *hex, unsigned char out[CHILD_SECRET])
{
    for (int i = 0; i < CHILD_SECRET; i++) {
        unsigned byte;
        if (strspn(hex + 2 * i, "0123456789abcdefABCDEF") < 2 ||
            sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return false;
        out[i] = (unsigned char)byte;
    }
    return true;
}

static err make_secret(const char *path, unsigned char out[CHILD_SECRET])
{
    char hex[2 * CHILD_SECRET + 2];
    must(getrandom(out, CHILD_SECRET, 0) == CHILD_SECRET);
    for (int i = 0; i < CHILD_SECRET; i++)
        snprintf(hex + 2 * i, 3, "%02x", out[i]);
    hex[2 * CHILD_SECRET] = '\n';
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return ERR_IO;
    ssize_t n = write(fd, hex, 2 * CHILD_SECRET + 1);
    bool good = n == 2 * CHILD_SECRET + 1 && fsync(fd) == 0;
    explicit_bzero(hex, sizeof hex);
    close(fd);
    return good ? ERR_OK : ERR_IO;
}

static err read_secret(int fd, const char *path, unsigned char out[CHILD_SECRET], str *problem,
                       struct arena *a)
{
    char hex[2 * CHILD_SECRET + 2] = "";
    struct stat st;
    err e = ERR_BAD;
    if (fstat(fd, &st) == 0 && st.st_mode & 0077)
        *problem = arena_printf(a, "%s can be read by others: chmod 600 %s", path, path);
    else if (read(fd, hex, sizeof hex - 1) < 2 * CHILD_SECRET || !from_hex(hex, out))
        *problem = arena_printf(a, "%s: 64 hexadecimal digits are wanted", path);
    else
        e = ERR_OK;
    explicit_bzero(hex, sizeof hex);
    return e;
}

err files_secret(const struct conf *c, unsigned char out[CHILD_SECRET], str *problem,
                 struct arena *a)
{
    str path = conf_path(c, c->cluster_secret_file, a);
    int fd = open(path.p, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        err e = read_secret(fd, path.p, out, problem, a);
        close(fd);
        return e;
    }
    if (errno == ENOENT && conf_text(c, c->cluster_name).n) {
        *problem =
            arena_printf(a,
                         "%s is not there: without the cluster's secret this node would take "
                         "every account for another's. See: pemberley cluster join",
                         path.p);
        return ERR_NOT_FOUND;
    }
    str directory = path;
    while (directory.n > 1 && directory.p[directory.n - 1] != '/')
        directory.n--;
    directory.n -= directory.n > 1;
    if (errno == ENOENT && files_directory(directory, a) && make_secret(path.p, out) == ERR_OK)
        return ERR_OK;
    *problem = arena_printf(a, "%s: %s", path.p, strerror(errno));
    return ERR_IO;
}
