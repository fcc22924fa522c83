/* identity: see identity.h.
 *
 *     data_dir/cluster      ca.pem  ca.key  node.pem  node.key  secret     0600, in a 0700
 * directory data_dir/cluster.new  being written; then exchanged; then what was old, being removed
 *
 * Rejected: renaming file by file. A crash between two leaves a key with another's certificate,
 * and a node that cannot talk to its cluster until somebody understands why. */
#include "node/super/identity.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/super/inside.h"
#include "proto/base/base64.h"

enum { FILES = 5, ENTRIES_MAX = 256 };

static const char *const names[FILES] = {"ca.pem", "ca.key", "node.pem", "node.key", "secret"};

static str *text_of(struct identity *i, unsigned file)
{
    str *texts[FILES] = {&i->authority.certificate, &i->authority.key, &i->node.certificate,
                         &i->node.key, &i->secret};
    return texts[file];
}

static err failed(struct identity_place *p, const char *path)
{
    p->problem = arena_printf(p->arena, "%s: %s", path, strerror(errno));
    return ERR_IO;
}

static const char *path_in(struct identity_place *p, const char *directory, const char *name)
{
    return arena_printf(p->arena, "%s/%s/%s", p->data_dir.p, directory, name).p;
}
static const char *directory_of(struct identity_place *p, const char *name)
{
    return arena_printf(p->arena, "%s/%s", p->data_dir.p, name).p;
}

/* The secret may be configured to lie elsewhere. */
static bool is_inside(struct identity_place *p, str file)
{
    return str_eq(file, str_of(path_in(p, "cluster", "secret")));
}

/* ---- place ---- */

err identity_open(struct identity_place *p, const struct conf *c, struct arena *a)
{
    *p = (struct identity_place){.arena = a, .lock_fd = -1};
    p->data_dir = arena_dup(a, conf_text(c, c->node_data_dir));
    p->secret_file = conf_path(c, c->cluster_secret_file, a);
    if (!files_directory(p->data_dir, a))
        return failed(p, p->data_dir.p);
    p->lock_fd = open(p->data_dir.p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->lock_fd < 0)
        return failed(p, p->data_dir.p);
    if (flock(p->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return ERR_OK;
    p->problem = arena_printf(a, "%s: another cluster command is at work", p->data_dir.p);
    identity_close(p);
    return ERR_EXISTS;
}

void identity_close(struct identity_place *p)
{
    if (p->lock_fd >= 0)
        close(p->lock_fd);
    p->lock_fd = -1;
}

/* ---- reading ---- */

/* Empty if there is no such file. */
static err read_file(struct identity_place *p, const char *path, str *out)
{
    char *text = arena_alloc(p->arena, IDENTITY_FILE_MAX + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *out = STR_NONE;
    if (fd < 0)
        return errno == ENOENT ? ERR_OK : failed(p, path);
    ssize_t n = read(fd, text, IDENTITY_FILE_MAX + 1);
    if (n > IDENTITY_FILE_MAX)
        n = -1, errno = EFBIG;
    err e = n < 0 ? failed(p, path) : ERR_OK;
    close(fd);
    if (!e)
        *out = (str){text, (size_t)n};
    return e;
}

err identity_read(struct identity_place *p, struct identity *out)
{
    *out = (struct identity){0};
    for (unsigned i = 0; i < FILES; i++) {
        const char *path = i == FILES - 1 ? p->secret_file.p : path_in(p, "cluster", names[i]);
        err e = read_file(p, path, text_of(out, i));
        if (e)
            return e;
    }
    if (out->secret.n > IDENTITY_SECRET)
        out->secret.n = IDENTITY_SECRET; /* its newline */
    return ERR_OK;
}

/* ---- writing ---- */

/* root does this for a node that runs as somebody else: the owner of data_dir. */
static bool give_to_node(struct identity_place *p, int fd)
{
    struct stat st;
    return geteuid() != 0 || (fstat(p->lock_fd, &st) == 0 && fchown(fd, st.st_uid, st.st_gid) == 0);
}

static err write_file(struct identity_place *p, const char *path, str text, str end)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return failed(p, path);
    errno = ENOSPC; /* what a short write means */
    bool good = write(fd, text.p, text.n) == (ssize_t)text.n &&
                write(fd, end.p, end.n) == (ssize_t)end.n && fchmod(fd, 0600) == 0 &&
                give_to_node(p, fd) && fsync(fd) == 0;
    err e = good ? ERR_OK : failed(p, path);
    close(fd);
    return e;
}

static bool is_ours(const char *name)
{
    for (unsigned i = 0; i < FILES; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* What the operator, or a later version, has put beside our files. */
static err link_others(struct identity_place *p)
{
    DIR *d = opendir(directory_of(p, "cluster"));
    err e = ERR_OK;
    struct dirent *entry;
    if (!d)
        return errno == ENOENT ? ERR_OK : failed(p, directory_of(p, "cluster"));
    for (unsigned i = 0; !e && (entry = readdir(d)); i++) {
        if (is_ours(entry->d_name) || strcmp(entry->d_name, ".") == 0 ||
            strcmp(entry->d_name, "..") == 0)
            continue;
        const char *old = path_in(p, "cluster", entry->d_name);
        if (i >= ENTRIES_MAX || link(old, path_in(p, "cluster.new", entry->d_name)) < 0)
            e = failed(p, old);
    }
    closedir(d);
    return e;
}

/* With all that lies in it; it is not there afterwards, or that is a problem. */
static err remove_aside(struct identity_place *p)
{
    const char *aside = directory_of(p, "cluster.new");
    DIR *d = opendir(aside);
    struct dirent *entry;
    if (!d)
        return errno == ENOENT ? ERR_OK : failed(p, aside);
    while ((entry = readdir(d)))
        (void)unlinkat(dirfd(d), entry->d_name, 0); /* what stays shows in rmdir */
    closedir(d);
    return rmdir(aside) == 0 ? ERR_OK : failed(p, aside);
}

static err make_aside(struct identity_place *p)
{
    const char *aside = directory_of(p, "cluster.new");
    if (mkdir(aside, 0700) < 0)
        return failed(p, aside);
    int fd = open(aside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    err e = fd >= 0 && give_to_node(p, fd) ? ERR_OK : failed(p, aside);
    if (fd >= 0)
        close(fd);
    return e;
}

static err fill_aside(struct identity_place *p, struct identity *i)
{
    bool inside = is_inside(p, p->secret_file);
    for (unsigned k = 0; k < FILES; k++) {
        str *text = text_of(i, k);
        if (text->n == 0 || (k == FILES - 1 && !inside))
            continue;
        err e = write_file(p, path_in(p, "cluster.new", names[k]), *text,
                           k == FILES - 1 ? STR("\n") : STR_NONE);
        if (e)
            return e;
    }
    return link_others(p);
}

static err exchange(struct identity_place *p)
{
    const char *now = directory_of(p, "cluster"), *aside = directory_of(p, "cluster.new");
    int fd = open(aside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    good = good && (renameat2(AT_FDCWD, aside, AT_FDCWD, now, RENAME_EXCHANGE) == 0 ||
                    (errno == ENOENT && rename(aside, now) == 0));
    return good && fsync(p->lock_fd) == 0 ? ERR_OK : failed(p, now);
}

/* Before the rest: a secret alone is what a node has before it is in a cluster. */
static err write_secret_elsewhere(struct identity_place *p, str secret)
{
    const char *aside = arena_printf(p->arena, "%s.new", p->secret_file.p).p;
    (void)unlink(aside);
    err e = write_file(p, aside, secret, STR("\n"));
    if (!e && rename(aside, p->secret_file.p) < 0)
        e = failed(p, p->secret_file.p);
    return e;
}

err identity_write(struct identity_place *p, const struct identity *i)
{
    struct identity copy = *i, there;
    err e = remove_aside(p);
    if (!e && !copy.secret.n) {
        e = identity_read(p, &there);
        copy.secret = e ? STR_NONE : there.secret;
    }
    if (!e && i->secret.n && !is_inside(p, p->secret_file))
        e = write_secret_elsewhere(p, i->secret);
    if (!e)
        e = make_aside(p);
    if (!e)
        e = fill_aside(p, &copy);
    if (!e)
        e = exchange(p);
    if (e) {
        str problem = p->problem;
        (void)remove_aside(p);
        p->problem = problem;
        return e;
    }
    return remove_aside(p);
}

/* ---- tokens ---- */

static const char head[] = "pemberley join 1\n", begin[] = "-----BEGIN ", end[] = "-----END ",
                  secret_word[] = "secret ";

str identity_token(const struct identity *i, struct arena *a)
{
    const str parts[] = {str_of(head), i->authority.certificate, i->node.certificate,
                         i->node.key,  str_of(secret_word),      i->secret,
                         STR("\n")};
    return base64_encode_in(a, arena_concat(a, parts, array_len(parts)));
}

static bool take_word(str *in, const char *word)
{
    if (!str_starts(*in, str_of(word)))
        return false;
    *in = str_skip(*in, strlen(word));
    return true;
}

/* One PEM block with its last newline. */
static bool take_pem(str *in, str *out)
{
    if (!str_starts(*in, str_of(begin)))
        return false;
    const char *last = memmem(in->p, in->n, end, sizeof end - 1);
    const char *line = last ? memchr(last, '\n', in->n - (size_t)(last - in->p)) : NULL;
    if (!line)
        return false;
    *out = (str){in->p, (size_t)(line + 1 - in->p)};
    *in = str_skip(*in, out->n);
    return out->n <= IDENTITY_FILE_MAX;
}

static bool take_secret(str *in, str *out)
{
    if (!take_word(in, secret_word) || in->n != IDENTITY_SECRET + 1 ||
        in->p[IDENTITY_SECRET] != '\n')
        return false;
    *out = (str){in->p, IDENTITY_SECRET};
    for (size_t i = 0; i < out->n; i++)
        if (!strchr("0123456789abcdefABCDEF", out->p[i]) || !out->p[i])
            return false;
    return true;
}

/* Line breaks are no part of it: terminals and mails make them. */
static str unwrapped(str token, struct arena *a)
{
    char *out = arena_alloc(a, token.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < token.n; i++)
        if (token.p[i] != '\n' && token.p[i] != '\r')
            out[n++] = token.p[i];
    return (str){out, n};
}

err identity_from_token(str token, struct arena *a, struct identity *out)
{
    str text;
    *out = (struct identity){0};
    if (token.n > IDENTITY_TOKEN_MAX || base64_decode_in(a, unwrapped(token, a), &text) != ERR_OK)
        return ERR_BAD;
    bool whole = take_word(&text, head) && take_pem(&text, &out->authority.certificate) &&
                 take_pem(&text, &out->node.certificate) && take_pem(&text, &out->node.key) &&
                 take_secret(&text, &out->secret);
    return whole ? ERR_OK : ERR_BAD;
}
