/* JSON (RFC 8259) by recursive descent. */
#include "node/super/json.h"

#include <ctype.h>
#include <stdlib.h>

enum { DEPTH_MAX = 16 };

void json_write(FILE *out, str s)
{
    fputc('"', out);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

struct reader {
    const char *p, *end;
    struct arena *arena;
    int depth;
};

static struct json *value(struct reader *r);

static void space(struct reader *r)
{
    while (r->p < r->end && strchr(" \t\r\n", *r->p) && *r->p)
        r->p++;
}

static bool eat(struct reader *r, char c)
{
    space(r);
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

static size_t put_utf8(char *out, unsigned c)
{
    if (c < 0x80)
        return out[0] = (char)c, 1;
    if (c < 0x800)
        return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
    out[0] = (char)(0xe0 | c >> 12);
    out[1] = (char)(0x80 | (c >> 6 & 63));
    out[2] = (char)(0x80 | (c & 63));
    return 3;
}

/* One escape behind the backslash; bytes written, 0 when it is none. */
static size_t escape(struct reader *r, char *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (r->p == r->end)
        return 0;
    char c = *r->p++;
    const char *at = c ? strchr(from, c) : NULL;
    if (at)
        return out[0] = to[at - from], 1;
    if (c != 'u' || r->end - r->p < 4)
        return 0;
    char hex[5] = {r->p[0], r->p[1], r->p[2], r->p[3], 0}, *stop;
    unsigned long code = strtoul(hex, &stop, 16);
    if (stop != hex + 4)
        return 0;
    r->p += 4;
    return put_utf8(out, (unsigned)code);
}

static bool string(struct reader *r, str *out)
{
    if (!eat(r, '"'))
        return false;
    const char *close = r->p;
    while (close < r->end && *close != '"')
        close += close[0] == '\\' && close + 1 < r->end ? 2 : 1;
    char *to = arena_alloc(r->arena, (size_t)(close - r->p)); /* never longer unescaped */
    size_t n = 0;
    while (r->p < r->end && *r->p != '"') {
        if (*r->p != '\\') {
            to[n++] = *r->p++;
            continue;
        }
        r->p++;
        size_t more = escape(r, to + n);
        if (!more)
            return false;
        n += more;
    }
    if (r->p == r->end)
        return false;
    r->p++;
    *out = (str){to, n};
    return true;
}

static bool members(struct reader *r, struct json *j, char close)
{
    struct json **last = &j->first;
    if (eat(r, close))
        return true;
    do {
        str key = STR("");
        if (j->kind == JSON_OBJECT && (!string(r, &key) || !eat(r, ':')))
            return false;
        if (!(*last = value(r)))
            return false;
        (*last)->key = key;
        last = &(*last)->next;
    } while (eat(r, ','));
    return eat(r, close);
}

static bool word(struct reader *r, struct json *j)
{
    const char *from = r->p;
    while (r->p < r->end && (isalnum((unsigned char)*r->p) || strchr("+-.", *r->p)) && *r->p)
        r->p++;
    j->text = str_from(from, (size_t)(r->p - from));
    if (str_is(j->text, "true") || str_is(j->text, "false"))
        j->kind = JSON_BOOL;
    else if (str_is(j->text, "null"))
        j->kind = JSON_NULL;
    else if (j->text.n && (isdigit((unsigned char)from[0]) || from[0] == '-'))
        j->kind = JSON_NUMBER;
    else
        return false;
    return true;
}

static struct json *value(struct reader *r)
{
    struct json *j = arena_zalloc(r->arena, sizeof *j);
    bool good;
    space(r);
    if (r->p == r->end || ++r->depth > DEPTH_MAX)
        return NULL;
    switch (*r->p) {
    case '{':
        j->kind = JSON_OBJECT;
        r->p++, good = members(r, j, '}');
        break;
    case '[':
        j->kind = JSON_ARRAY;
        r->p++, good = members(r, j, ']');
        break;
    case '"':
        j->kind = JSON_STRING;
        good = string(r, &j->text);
        break;
    default: good = word(r, j);
    }
    r->depth--;
    return good ? j : NULL;
}

struct json *json_parse(str text, struct arena *a)
{
    struct reader r = {text.p, text.p + text.n, a, 0};
    struct json *j = text.n ? value(&r) : NULL;
    space(&r);
    return r.p == r.end ? j : NULL;
}

const struct json *json_get(const struct json *j, const char *key)
{
    if (!j || j->kind != JSON_OBJECT)
        return NULL;
    for (const struct json *m = j->first; m; m = m->next)
        if (str_eq(m->key, str_of(key)))
            return m;
    return NULL;
}

str json_text(const struct json *j, const char *key)
{
    const struct json *m = json_get(j, key);
    return m ? m->text : STR("");
}

double json_number(const struct json *j, const char *key)
{
    char z[64] = "";
    str s = json_text(j, key);
    memcpy(z, s.n ? s.p : "", s.n < sizeof z - 1 ? s.n : sizeof z - 1);
    return strtod(z, NULL);
}
