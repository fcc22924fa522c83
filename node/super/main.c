/* pemberley: the supervisor and the command line are one executable. */
#include <stdlib.h>

#include "node/super/cli.h"

#define DEFAULT_CONFIG "/etc/pemberley/pemberley.conf"

static const struct command {
    const char *words, *arguments, *sentence;
    int (*run)(struct cli *c);
} commands[] = {
#define COMMAND(words, arguments, function, sentence) {words, arguments, sentence, function},
#include "node/super/commands.def"
#undef COMMAND
};

static int help(void)
{
    puts("pemberley [--config FILE] [--json] [--yes] [--quiet] [--timeout 10s] COMMAND\n");
    for (size_t i = 0; i < array_len(commands); i++) {
        int n = printf("  %s %s", commands[i].words, commands[i].arguments);
        printf("%*s%s\n", n < 46 ? 46 - n : 2, "", commands[i].sentence);
    }
    puts("\nThe config is --config, else $PEMBERLEY_CONFIG, else " DEFAULT_CONFIG ".\n"
         "Exit: 0 done, 1 failed, 2 usage, 3 node not running, 4 no such user, host or node, 5 "
         "exists,\n"
         "      6 not confirmed, 7 timed out or partly done, 78 config.");
    return EXIT_DONE;
}

static bool timeout_of(const char *text, int64_t *ms)
{
    char *unit;
    unsigned long n = strtoul(text, &unit, 10);
    const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    for (size_t i = 0; i < array_len(units); i++)
        if (unit != text && n < 100000 && strcmp(unit, units[i].unit) == 0)
            return *ms = (int64_t)n * units[i].ms, true;
    return false;
}

/* Switches stand anywhere; what they are is the same for all commands. */
static bool flag(struct cli *c, const char *word)
{
    const struct {
        const char *name;
        bool *value;
    } flags[] = {
        {"--json", &c->json},        {"--yes", &c->yes},           {"--quiet", &c->quiet},
        {"--now", &c->now},          {"--watch", &c->watch},       {"--print", &c->print},
        {"--stdin", &c->from_stdin}, {"--generate", &c->generate}, {"--cancel", &c->cancel}};
    for (size_t i = 0; i < array_len(flags); i++)
        if (strcmp(word, flags[i].name) == 0)
            return *flags[i].value = true;
    return false;
}

/* An option with a value; false: none of ours, or the value is missing or wrong. */
static bool option(struct cli *c, const char *word, const char *value)
{
    const struct {
        const char *name;
        const char **value;
    } texts[] = {{"--config", &c->config_file},
                 {"--like", &c->like},
                 {"--after", &c->after},
                 {"--limit", &c->limit},
                 {"--rate", &c->rate},
                 {"--slot", &c->slot},
                 {"--jid", &c->jid}};
    if (!value)
        return false;
    for (size_t i = 0; i < array_len(texts); i++)
        if (strcmp(word, texts[i].name) == 0)
            return *texts[i].value = value, true;
    if (strcmp(word, "--timeout") == 0)
        return timeout_of(c->timeout = value, &c->timeout_ms);
    if (strcmp(word, "--set") != 0 || c->set_count == CLI_SETS_MAX)
        return false;
    c->sets[c->set_count++] = value;
    return true;
}

/* The words that are no options move to the front. */
static bool read_options(struct cli *c, int argc, char **argv)
{
    c->argv = argv;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' || strcmp(argv[i], "-") == 0) {
            c->argv[c->argc++] = argv[i];
        } else if (!flag(c, argv[i])) {
            if (!option(c, argv[i], i + 1 < argc ? argv[i + 1] : NULL)) {
                cli_fail(EXIT_USAGE, "%s is no option, or lacks its value. See: pemberley help",
                         argv[i]);
                return false;
            }
            i++;
        }
    }
    return true;
}

/* How many of the command's words stand at the front; 0: it is another command. */
static size_t matches(const struct command *k, const struct cli *c)
{
    size_t n = 0;
    for (const char *p = k->words; *p; n++) {
        size_t len = strcspn(p, " ");
        if (n >= c->argc || strlen(c->argv[n]) != len || memcmp(c->argv[n], p, len) != 0)
            return 0;
        p += len + (p[len] == ' ');
    }
    return n;
}

/* The words in capitals that its arguments begin with. */
static size_t words_taken(const char *arguments)
{
    size_t n = 0;
    for (const char *p = arguments; *p >= 'A' && *p <= 'Z'; n++) {
        p += strcspn(p, " ");
        p += strspn(p, " ");
    }
    return n;
}

/* No command takes more words than it says: a password written behind the JID is refused instead of
 * being passed over. */
static int run_command(const struct command *k, struct cli *c)
{
    static const char *const counts[] = {"no argument", "one argument", "two arguments"};
    size_t takes = words_taken(k->arguments);
    must(takes < array_len(counts));
    if (c->argc > takes)
        return cli_fail(EXIT_USAGE, "%s takes %s. See: pemberley help", k->words, counts[takes]);
    return k->run(c);
}

static int run(struct cli *c)
{
    if (c->argc == 0 || strcmp(c->argv[0], "help") == 0)
        return help();
    for (size_t i = 0; i < array_len(commands); i++) {
        size_t n = matches(&commands[i], c);
        if (n) {
            c->argc -= n, c->argv += n;
            return run_command(&commands[i], c);
        }
    }
    return cli_fail(EXIT_USAGE, "no command \"%s%s%s\". See: pemberley help", c->argv[0],
                    c->argc > 1 ? " " : "", c->argc > 1 ? c->argv[1] : "");
}

int main(int argc, char **argv)
{
    static struct cli c = {.timeout_ms = 10000};
    arena_init(&c.arena);
    const char *environment = getenv("PEMBERLEY_CONFIG");
    c.config_file = environment && *environment ? environment : DEFAULT_CONFIG;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return help();
    int exit = read_options(&c, argc, argv) ? run(&c) : EXIT_USAGE;
    arena_close(&c.arena);
    return exit;
}
