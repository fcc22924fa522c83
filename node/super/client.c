/* The other end of the admin socket. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "node/os/control.h"
#include "node/super/cli.h"
#include "proto/bus/control.pb-c.h"

enum { ANSWER_MAX = 256 << 20, ARGV_MAX = 64 };

int cli_fail(int exit, const char *fmt, ...)
{
    va_list ap;
    fputs("pemberley: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return exit;
}

void cli_say(const struct cli *c, const char *fmt, ...)
{
    va_list ap;
    if (c->quiet)
        return;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
}

struct conf_draft *cli_config(struct cli *c)
{
    struct conf_draft *d = conf_draft_new();
    conf_load(d, c->config_file);
    if (d->problem_count == 0)
        return d;
    fprintf(stderr, "%.*s\n", STR_ARG(d->problems[0]));
    conf_draft_free(d);
    return NULL;
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return errno = ENAMETOOLONG, -1;
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
        return fd;
    int why = errno;
    close(fd);
    return errno = why, -1;
}

static bool send_command(int fd, size_t argc, const str *argv)
{
    ProtobufCBinaryData args[ARGV_MAX];
    Control__Command m = CONTROL__COMMAND__INIT;
    char bytes[16 * 1024];
    must(argc <= ARGV_MAX);
    for (size_t i = 0; i < argc; i++)
        args[i] = (ProtobufCBinaryData){argv[i].n, (uint8_t *)(uintptr_t)argv[i].p};
    m.id = 1, m.argv = args, m.n_argv = argc;
    if (control__command__get_packed_size(&m) > sizeof bytes)
        return false;
    size_t n = control__command__pack(&m, (uint8_t *)bytes);
    return control_write(fd, bytes, n, NULL, 0) == ERR_OK;
}

/* Collects the chunks; the exit code, or -1 when none came in time. */
static int receive(struct cli *c, int fd, FILE *out)
{
    static char buffer[CONTROL_MESSAGE_MAX];
    int fds[CONTROL_FDS_MAX];
    size_t n, n_fds, total = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, (int)c->timeout_ms) > 0) {
        err e = control_read(fd, buffer, &n, fds, &n_fds);
        if (e == ERR_PARTIAL)
            continue;
        Control__Reply *r =
            e == ERR_OK ? control__reply__unpack(NULL, n, (const uint8_t *)buffer) : NULL;
        if (!r || (total += r->text.len) > ANSWER_MAX) {
            control__reply__free_unpacked(r, NULL);
            return -1;
        }
        if (r->more && c->on_progress)
            c->on_progress(c, str_from(r->text.data, r->text.len));
        else
            fwrite(r->text.data, 1, r->text.len, out);
        int exit = r->more ? -1 : (int)r->exit;
        control__reply__free_unpacked(r, NULL);
        if (exit >= 0)
            return exit;
    }
    return -1;
}

static int ask_on(struct cli *c, int fd, size_t argc, const str *argv, str *text)
{
    char *answer = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&answer, &n);
    must(out);
    int exit = send_command(fd, argc, argv) ? receive(c, fd, out) : -1;
    must(fclose(out) == 0);
    *text = arena_dup(&c->arena, str_from(answer, n));
    free(answer);
    if (exit >= 0)
        return exit;
    *text = STR("the node did not answer in time");
    return EXIT_TIMEOUT;
}

int cli_ask(struct cli *c, size_t argc, const str *argv, str *text)
{
    struct conf_draft *d = conf_draft_new();
    conf_load(d, c->config_file);
    const struct conf_setting *s = conf_draft_get(d, NULL, CONF_ROW_node_run_dir);
    const char *path = arena_printf(&c->arena, "%.*s/control.sock", STR_ARG(s->values[0])).p;
    str problem = d->problem_count ? arena_dup(&c->arena, d->problems[0]) : STR_NONE;
    conf_draft_free(d);
    int fd = connect_to(path);
    if (fd < 0 && problem.n) { /* else a mistake elsewhere in the file is not ours to look at */
        *text =
            arena_printf(&c->arena, "the config cannot be read, so the node cannot be found: %.*s",
                         STR_ARG(problem));
        return EXIT_CONFIG;
    }
    if (fd < 0) {
        *text = errno == ENOENT || errno == ECONNREFUSED
                    ? arena_printf(&c->arena, "the node is not running (%s)", path)
                    : arena_printf(&c->arena, "%s: %s", path, strerror(errno));
        return EXIT_NOT_RUNNING;
    }
    int exit = ask_on(c, fd, argc, argv, text);
    close(fd);
    return exit;
}

int cli_ask_shown(struct cli *c, size_t argc, const str *argv, str *text, bool *shown)
{
    int exit = cli_ask(c, argc, argv, text);
    *shown = exit != EXIT_DONE || c->json;
    if (exit != EXIT_DONE)
        return cli_fail(exit, "%.*s", STR_ARG(*text));
    if (c->json)
        printf("%.*s\n", STR_ARG(*text));
    return exit;
}
