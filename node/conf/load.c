/* Files into a draft. libconfuse is the lexer and the grammar: it is told every option as a text
 * (so that it never guesses a number), and value.c looks at the texts afterwards, all of them, so
 * that one run names all mistakes.
 *
 * Four things it does not do by itself, and how they are had:
 * - its version 3.3 takes no comment inside a list and counts three lines for each elsewhere: it is
 *   shown spaces instead of comments;
 * - the line of an option is known only while it is parsed: the validator notes it as the option's
 *   comment;
 * - `+=` and `=` of a list look the same afterwards: each list begins with a mark as its default,
 *   which `=` clears and `+=` keeps;
 * - a file that ends inside an open section is taken: a last line that only the top level knows
 *   makes that an error. */
#include "node/conf/load.h"

#include <confuse.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define LAST_OPTION "__end__"
#define LIST_MARK "\001"
enum { FILE_MAX = 64 << 20, SECTIONS_MAX = 32, PATH_BYTES_MAX = 128 };

struct reading {
    struct conf_draft *draft;
    const char *name; /* as in problems: relative to the config's directory */
    cfg_t *root;
};
/* libconfuse's callbacks carry no context, and its lexer is global anyway: one reading at a time.
 */
static struct reading *reading;

/* ---- the table as libconfuse wants it -------------------------------------------------------- */

static cfg_opt_t text_option(struct arena *a, str name, enum conf_kind kind)
{
    char *z = (char *)arena_dup(a, name).p;
    if (conf_kind_is_list(kind))
        return (cfg_opt_t)CFG_STR_LIST(z, "{\"" LIST_MARK "\"}", CFGF_NONE);
    return (cfg_opt_t)CFG_STR(z, NULL, CFGF_NODEFAULT);
}

static cfg_opt_t *host_options(struct arena *a)
{
    cfg_opt_t *o = arena_zalloc(a, (CONF_HOST_ROWS + 1) * sizeof *o);
    for (int i = 0; i < CONF_HOST_ROWS; i++)
        o[i] = text_option(a, str_of(conf_host_rows[i].path), conf_host_rows[i].kind);
    o[CONF_HOST_ROWS] = (cfg_opt_t)CFG_END();
    return o;
}

static bool has(const cfg_opt_t *o, size_t n, str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(str_of(o[i].name), name))
            return true;
    return false;
}

/* The options and sections below prefix ("" or "limits."). */
static cfg_opt_t *options(struct arena *a, str prefix)
{
    cfg_opt_t *o = arena_zalloc(a, (CONF_ROWS + 3) * sizeof *o);
    size_t n = 0;
    for (int i = 0; i < CONF_ROWS; i++) {
        str path = str_of(conf_rows[i].path);
        if (!str_starts(path, prefix))
            continue;
        str rest = str_skip(path, prefix.n);
        const char *dot = memchr(rest.p, '.', rest.n);
        str name = dot ? (str){rest.p, (size_t)(dot - rest.p)} : rest;
        if (has(o, n, name))
            continue;
        str below = {path.p, prefix.n + name.n + 1};
        char *z = (char *)arena_dup(a, name).p;
        o[n++] = dot ? (cfg_opt_t)CFG_SEC(z, options(a, below), CFGF_NONE)
                     : text_option(a, name, conf_rows[i].kind);
    }
    if (prefix.n == 0) {
        o[n++] = (cfg_opt_t)CFG_SEC("host", host_options(a),
                                    CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES);
        o[n++] = (cfg_opt_t)CFG_STR(LAST_OPTION, NULL, CFGF_NODEFAULT);
    }
    o[n] = (cfg_opt_t)CFG_END();
    return o;
}

/* ---- while it parses ------------------------------------------------------------------------- */

static int note_line(cfg_t *cfg, cfg_opt_t *opt)
{
    char line[16];
    snprintf(line, sizeof line, "%d", cfg->line);
    free(opt->comment);
    opt->comment = strdup(line);
    return 0;
}

static void watch(cfg_opt_t *o)
{
    for (; o->name; o++)
        if (o->type == CFGT_SEC)
            watch(o->subopts);
        else
            o->validcb = note_line;
}

/* The path of a section below root, "limits.c2s"; false if it is not there. */
static bool section_path(cfg_t *at, const cfg_t *wanted, char path[PATH_BYTES_MAX], size_t n)
{
    if (at == wanted)
        return true;
    for (cfg_opt_t *o = at->opts; o->name; o++) {
        for (unsigned i = 0; o->type == CFGT_SEC && i < o->nvalues; i++) {
            int more = snprintf(path + n, PATH_BYTES_MAX - n, "%s%s", n ? "." : "", o->name);
            if (more > 0 && n + (size_t)more < PATH_BYTES_MAX &&
                section_path(o->values[i]->section, wanted, path, n + (size_t)more))
                return true;
        }
    }
    path[n] = 0;
    return false;
}

/* The name in the section nearest to a misspelt one. */
static const char *near_in(const cfg_t *section, str name)
{
    unsigned best = (unsigned)name.n / 3 + 2;
    const char *found = NULL;
    for (const cfg_opt_t *o = section->opts; o->name; o++) {
        unsigned d = conf_distance(name, str_of(o->name));
        if (d < best && strcmp(o->name, LAST_OPTION) != 0)
            best = d, found = o->name;
    }
    return found;
}

static bool has_option(const cfg_t *section, str name)
{
    for (const cfg_opt_t *o = section->opts; o->name; o++)
        if (str_eq(str_of(o->name), name))
            return true;
    return false;
}

static void no_such_option(cfg_t *section, const char *where, str name, struct conf_origin at)
{
    if (str_is(name, LAST_OPTION)) {
        conf_draft_problem(reading->draft, (struct conf_origin){at.file, at.line - 1},
                           "the file ends, but section %s is still open: a } is missing", where);
        return;
    }
    if (section != reading->root && has_option(reading->root, name)) {
        conf_draft_problem(reading->draft, at, "%s: no option \"%.*s\". Is a } missing before it?",
                           where, STR_ARG(name));
        return;
    }
    const char *near = near_in(section, name);
    conf_draft_problem(reading->draft, at, "%s%sno option \"%.*s\"%s%s%s", where,
                       *where ? ": " : "", STR_ARG(name), near ? ". Did you mean \"" : "",
                       near ? near : "", near ? "\"?" : "");
}

/* The 'quoted' word in a message of libconfuse. */
static str quoted_word(const char *message)
{
    const char *from = strchr(message, '\''), *to = from ? strrchr(from + 1, '\'') : NULL;
    return to ? str_from(from + 1, (size_t)(to - from - 1)) : STR("");
}

static void on_syntax_error(cfg_t *cfg, const char *fmt, va_list ap)
{
    char message[512], path[PATH_BYTES_MAX] = "", where[PATH_BYTES_MAX + 300] = "";
    const struct conf_origin at = {reading->name, cfg->line};
    vsnprintf(message, sizeof message, fmt, ap);
    if (cfg->title)
        snprintf(where, sizeof where, "host \"%.255s\"", cfg->title);
    else if (cfg != reading->root && section_path(reading->root, cfg, path, 0))
        snprintf(where, sizeof where, "%s", path);
    if (strncmp(message, "no such option", 14) == 0)
        no_such_option(cfg, where, quoted_word(message), at);
    else if (strncmp(message, "found duplicate title", 21) == 0)
        conf_draft_problem(reading->draft, at, "host \"%.*s\" stands there twice",
                           STR_ARG(quoted_word(message)));
    else if (strstr(message, LAST_OPTION) || strncmp(message, "premature end", 13) == 0)
        conf_draft_problem(reading->draft, at,
                           "the file ends in the middle of something: a } or "
                           "\" is missing before this line");
    else
        conf_draft_problem(reading->draft, at, "%s%s%s", where, *where ? ": " : "", message);
}

/* ---- after it -------------------------------------------------------------------------------- */

static void take_option(struct conf_draft_host *h, int row, cfg_opt_t *o)
{
    const struct conf_origin from = {reading->name, o->comment ? atoi(o->comment) : 0};
    struct conf_draft *d = reading->draft;
    unsigned n = cfg_opt_size(o);
    bool list = o->flags & CFGF_LIST;
    const char *first = n ? cfg_opt_getnstr(o, 0) : NULL;
    bool append = list && first && strcmp(first, LIST_MARK) == 0;
    if ((append && n == 1) || (!list && !first))
        return;
    str *values = arena_alloc(&d->arena, (n + 1) * sizeof *values);
    for (unsigned i = append; i < n; i++)
        values[i - append] = str_of(cfg_opt_getnstr(o, i));
    conf_draft_set(d, h, row, values, n - append, append, from);
}

static void take_section(cfg_t *cfg, char path[PATH_BYTES_MAX], size_t n)
{
    for (cfg_opt_t *o = cfg->opts; o->name; o++) {
        int more = snprintf(path + n, PATH_BYTES_MAX - n, "%s%s", n ? "." : "", o->name);
        must(more > 0 && n + (size_t)more < PATH_BYTES_MAX);
        int row = conf_row_find(str_of(path));
        if (o->type != CFGT_SEC && row >= 0)
            take_option(NULL, row, o);
        for (unsigned i = 0; o->type == CFGT_SEC && !(o->flags & CFGF_TITLE) && i < o->nvalues; i++)
            take_section(o->values[i]->section, path, n + (size_t)more);
    }
}

static void take_hosts(cfg_t *cfg)
{
    for (unsigned i = 0; i < cfg_size(cfg, "host"); i++) {
        cfg_t *section = cfg_getnsec(cfg, "host", i);
        struct conf_draft_host *h =
            conf_draft_host(reading->draft, str_of(cfg_title(section)),
                            (struct conf_origin){reading->name, section->line});
        if (!h)
            continue;
        for (cfg_opt_t *o = section->opts; o->name; o++)
            take_option(h, conf_host_row_find(str_of(o->name)), o);
    }
}

/* Past the 'quoted' text at p. */
static char *quoted_end(char *p)
{
    char quote = *p++;
    while (*p && *p != quote)
        p += *p == '\\' && p[1] ? 2 : 1;
    return *p ? p + 1 : p;
}

/* Past the comment at p, of which the line ends are left; one that is not closed goes to the end.
 */
static char *blank_comment(char *p)
{
    bool block = p[0] == '/' && p[1] == '*';
    char *end = block ? strstr(p + 2, "*/") : strchr(p, '\n');
    end = !end ? p + strlen(p) : block ? end + 2 : end;
    for (; p < end; p++)
        if (*p != '\n')
            *p = ' ';
    return end;
}

/* As libconfuse's words go: a # ends one, a // within one (http://localhost) begins no comment. */
static void blank_comments(char *p)
{
    while (*p) {
        if (*p == '"' || *p == '\'')
            p = quoted_end(p);
        else if (*p == '#' || (*p == '/' && (p[1] == '/' || p[1] == '*')))
            p = blank_comment(p);
        else if (strchr(" \t\r\n={}()+,", *p))
            p++;
        else
            p += strcspn(p, " \t\r\n={}()+,\"'#");
    }
}

static void parse(struct conf_draft *d, const char *name, char *content)
{
    struct arena a;
    arena_init(&a);
    cfg_opt_t *o = options(&a, STR_NONE);
    watch(o);
    struct reading now = {d, name, cfg_init(o, CFGF_NONE)};
    must(now.root);
    reading = &now;
    cfg_set_error_function(now.root, on_syntax_error);
    blank_comments(content);
    int result = cfg_parse_buf(now.root, content);
    if (result == CFG_SUCCESS && !cfg_getstr(now.root, LAST_OPTION)) {
        conf_draft_problem(d, (struct conf_origin){name, 0}, "the file ends inside a comment");
    } else if (result == CFG_SUCCESS) {
        char path[PATH_BYTES_MAX] = "";
        take_section(now.root, path, 0);
        take_hosts(now.root);
    } else if (d->problem_count == 0) {
        conf_draft_problem(d, (struct conf_origin){name, 0}, "cannot be parsed");
    }
    cfg_free(now.root);
    reading = NULL;
    arena_close(&a);
}

/* The file's bytes and the last line; NULL with errno. */
static char *content_of(const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    if (!f)
        return NULL;
    char *p = NULL;
    if (fstat(fileno(f), &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
        errno = EFBIG;
    } else if ((p = malloc((size_t)st.st_size + sizeof "\n" LAST_OPTION " = true\n"))) {
        size_t n = fread(p, 1, (size_t)st.st_size, f);
        memcpy(p + n, "\n" LAST_OPTION " = true\n", sizeof "\n" LAST_OPTION " = true\n");
        if (memchr(p, 0, n)) {
            free(p);
            p = NULL, errno = EILSEQ;
        }
    }
    int problem = errno;
    fclose(f);
    errno = problem;
    return p;
}

static void load_file(struct conf_draft *d, const char *path, const char *name)
{
    name = arena_dup(&d->arena, str_of(name)).p;
    char *content = content_of(path);
    if (!content) {
        conf_draft_problem(d, (struct conf_origin){path, 0}, "cannot be read: %s", strerror(errno));
        return;
    }
    parse(d, name, content);
    d->files++;
    free(content);
}

static int is_conf(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 5 && e->d_name[0] != '.' && strcmp(e->d_name + n - 5, ".conf") == 0;
}

void conf_load(struct conf_draft *d, const char *file)
{
    const char *slash = strrchr(file, '/');
    int directory = slash ? (int)(slash - file) + 1 : 0;
    load_file(d, file, file + directory);
    struct dirent **e;
    const char *conf_d = arena_printf(&d->arena, "%.*sconf.d", directory, file).p;
    int n = scandir(conf_d, &e, is_conf, alphasort);
    for (int i = 0; i < n; i++) {
        const char *path = arena_printf(&d->arena, "%s/%s", conf_d, e[i]->d_name).p;
        load_file(d, path, path + directory);
        free(e[i]);
    }
    if (n >= 0)
        free(e);
}
