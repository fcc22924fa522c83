/* What people read: the shipped file, the settings in force, one option explained. */
#include "node/conf/load.h"

enum { VALUE_COLUMN = 28, SENTENCE_COLUMN = 56 };

static const char head[] =
    "# pemberley.conf: every option with its default; a line that is left out means the same.\n"
    "#\n"
    "#   pemberley check-config                      reads all of it, opens nothing, changes "
    "nothing\n"
    "#   pemberley explain limits.c2s.stanza_max     one option: what it does, range, what to look "
    "at\n"
    "#   pemberley reload                            takes a changed file over, or says why not "
    "and changes nothing\n"
    "#\n"
    "# First in each comment:  L  reload changes it at once   N  for new connections or streams   "
    "R  needs a restart\n"
    "# Durations: 250ms 10s 5m 2h 7d    Sizes: 10000b 8k 2m 1g (powers of 1024)    Rates: 20/s "
    "30/m 5/h, 256k/s    Shares: 80%\n"
    "# Addresses: :5222 (every address, IPv4 and IPv6)  10.0.0.1:5222  \"[::1]:5222\"    Networks: "
    "10.0.0.0/8 \"2001:db8::/32\"\n"
    "# Lists: {a, b}; {} is empty; += appends.  Text with spaces, [ ] * or :: goes in quotes. "
    "\"${NAME}\" and \"${NAME:-default}\" in quotes\n"
    "# come from the environment. Secrets stand in files of their own (..._file: first line, "
    "readable by nobody else).\n"
    "# Files in conf.d/*.conf beside this one are read after it, in name order; then --set "
    "section.option=value.\n";

static void print_range(const struct conf_row *row, FILE *out)
{
    switch (row->kind) {
    case CONF_WORD:
    case CONF_FLAGS:
        for (const char *p = row->min; *p; p++)
            fputs(*p == ' ' ? ", " : (char[]){*p, 0}, out);
        break;
    case CONF_SWITCH: fputs("on, off", out); break;
    default:
        if (row->kind >= CONF_COUNT && row->kind <= CONF_MEMORY)
            fprintf(out, "%s%s%s", row->min, "..", row->max);
    }
}

static bool has_range(const struct conf_row *row)
{
    return row->kind >= CONF_COUNT && row->kind <= CONF_FLAGS && row->kind != CONF_MEMORY;
}

static void print_option(const struct conf_row *row, const char *name, int depth, const char *value,
                         FILE *out)
{
    int indent = 4 * depth;
    int n = fprintf(out, "%*s%-*s = %s", indent, "", VALUE_COLUMN - indent, name, value);
    if (strcmp(value, "") == 0)
        n += fprintf(out, "\"\"");
    fprintf(out, "%*s# %c ", n < SENTENCE_COLUMN ? SENTENCE_COLUMN - n : 1, "", row->class);
    if (has_range(row)) {
        print_range(row, out);
        fputs("; ", out);
    }
    fprintf(out, "%s\n", row->sentence);
}

/* Walks the sections of options.def, and prints each when its time comes. open: how many are. */
struct outline {
    FILE *out;
    char open[2][32];
    int depth;
};

static void close_to(struct outline *o, int depth)
{
    while (o->depth > depth) {
        o->depth--;
        fprintf(o->out, "%*s}\n", 4 * o->depth, "");
    }
}

static void open_section(struct outline *o, const char *path, const char *sentence)
{
    str p = str_of(path);
    const char *dot = memchr(p.p, '.', p.n);
    str top = {p.p, dot ? (size_t)(dot - p.p) : p.n};
    bool inside = o->depth && str_eq(str_of(o->open[0]), top);
    close_to(o, inside);
    if (!inside) {
        fprintf(o->out, "\n%s%s%s", *sentence ? "# " : "", sentence, *sentence ? "\n" : "");
        fprintf(o->out, str_is(top, "host") ? "%.*s \"localhost\" {\n" : "%.*s {\n", STR_ARG(top));
        snprintf(o->open[0], sizeof o->open[0], "%.*s", STR_ARG(top));
        o->depth = 1;
    }
    if (dot && dot[1]) {
        fprintf(o->out, "    %s {\n", dot + 1);
        o->depth = 2;
    }
}

static const char *last_name(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

void conf_template(FILE *out)
{
    struct outline o = {.out = out};
    fputs(head, out);
#define SECTION(path, sentence) open_section(&o, path, sentence);
#define OPT(field, path, kind, def, ...) \
    print_option(&conf_rows[CONF_ROW_##field], last_name(path), o.depth, def, out);
#define HOST_OPT(field, name, kind, def, ...) \
    print_option(&conf_host_rows[CONF_HOST_ROW_##field], name, o.depth, def, out);
#include "node/conf/options.def"
    close_to(&o, 0);
}

static void print_origin(const struct conf_setting *s, FILE *out)
{
    if (!s->set || !s->from.file)
        fputs("default\n", out);
    else if (s->from.line)
        fprintf(out, "%s:%d\n", s->from.file, s->from.line);
    else
        fprintf(out, "%s\n", s->from.file);
}

static void print_setting(struct conf_draft *d, const struct conf_draft_host *h, int row, FILE *out)
{
    const struct conf_row *r = h ? &conf_host_rows[row] : &conf_rows[row];
    const struct conf_setting *s = conf_draft_get(d, h, row);
    int n = h ? fprintf(out, "host[%.*s].%s = ", STR_ARG(h->title), r->path)
              : fprintf(out, "%s = ", r->path);
    n += fprintf(out, "%s", conf_setting_text(&d->arena, r, s).p);
    fprintf(out, "%*s# ", n < SENTENCE_COLUMN ? SENTENCE_COLUMN - n : 1, "");
    print_origin(s, out);
}

void conf_print(struct conf_draft *d, FILE *out)
{
    for (int row = 0; row < CONF_ROWS; row++)
        print_setting(d, NULL, row, out);
    for (size_t i = 0; i < d->host_count; i++)
        for (int row = 0; row < CONF_HOST_ROWS; row++)
            print_setting(d, &d->hosts[i], row, out);
}

static void explain(const struct conf_row *row, const char *prefix, FILE *out)
{
    const char *class = row->class == 'L'   ? "a reload changes it at once"
                        : row->class == 'N' ? "a reload changes it for new connections or streams"
                                            : "a change needs a restart";
    fprintf(out, "%s%s\n  %s\n  default %s", prefix, row->path, row->sentence,
            row->def[0] ? row->def : "\"\"");
    if (has_range(row)) {
        fputs("; allowed ", out);
        print_range(row, out);
    }
    fprintf(out, "; %s\n", class);
}

bool conf_explain(str name, FILE *out, const char **near)
{
    bool found = false;
    str option = str_starts(name, STR("host.")) ? str_skip(name, 5) : name;
    for (int i = 0; i < CONF_ROWS; i++) {
        str path = str_of(conf_rows[i].path);
        if (str_eq(path, name) || (str_starts(path, name) && path.p[name.n] == '.'))
            explain(&conf_rows[i], "", out), found = true;
    }
    for (int i = 0; i < CONF_HOST_ROWS; i++)
        if (str_is(name, "host") || str_eq(option, str_of(conf_host_rows[i].path)))
            explain(&conf_host_rows[i], "host.", out), found = true;
    *near = found ? NULL : conf_row_near(name, STR_NONE);
    return found;
}
