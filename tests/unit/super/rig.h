/* rig: the real supervisor and command line with children that only speak the control protocol
 * (fake_child.c), in a directory of its own. The config is each test's to write. */
#ifndef PEMBERLEY_TESTS_UNIT_SUPER_RIG_H
#define PEMBERLEY_TESTS_UNIT_SUPER_RIG_H

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/pemberley-super-XXXXXX";
static char config[64];
static pid_t node;
static char output[256 * 1024];

/* A loopback address of its own: on the usual one a port may belong to anybody's connection. */
static inline const char *rig_address(void)
{
    static char text[32];
    unsigned id = (unsigned)getpid();
    snprintf(text, sizeof text, "127.77.%u.%u", id >> 8 & 255, id & 255);
    return text;
}

/* Runs the command line; its exit code, and what it wrote in output. */
static inline int run(const char *arguments)
{
    char line[1024];
    snprintf(line, sizeof line, "exec 2>&1; %s --config %s %s", FAKE_PEMBERLEY, config, arguments);
    FILE *f = popen(line, "re");
    assert_non_null(f);
    size_t n = fread(output, 1, sizeof output - 1, f);
    output[n] = 0;
    return WEXITSTATUS(pclose(f));
}

/* Asks until the answer has this in it. */
static inline void wait_for(const char *arguments, const char *what)
{
    for (int i = 0; i < 300; i++) {
        if (run(arguments) == 0 && strstr(output, what))
            return;
        usleep(20000);
    }
    fail_msg("no %s in: %s", what, output);
}

static inline int rig_open(void)
{
    if (!mkdtemp(directory))
        return -1;
    snprintf(config, sizeof config, "%s/p.conf", directory);
    return 0;
}

/* Its log is the file "log". */
static inline void rig_start(void)
{
    node = fork();
    if (node == 0) {
        char log[64];
        snprintf(log, sizeof log, "%s/log", directory);
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 2);
        execl(FAKE_PEMBERLEY, "pemberley", "--config", config, "run", (char *)NULL);
        _exit(127);
    }
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
    return remove(path);
}

static inline int rig_close(void **state)
{
    if (node > 0) {
        kill(node, SIGKILL);
        waitpid(node, NULL, 0);
    }
    return nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline unsigned long number(const char *key)
{
    const char *at = strstr(output, key);
    assert_non_null(at);
    return strtoul(at + strlen(key), NULL, 10);
}

#endif
