/* Tables and short numbers. Widths count code points, so that JIDs in any script stay aligned. */
#include "node/super/table.h"

#include "pemberley/must.h"

void table_init(struct table *t, struct arena *a, const char *const *heads, size_t columns)
{
    must(columns <= TABLE_COLUMNS_MAX);
    *t = (struct table){.arena = a, .heads = heads, .columns = columns};
}

void table_add(struct table *t, str cell)
{
    if (t->count == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        str *cells = arena_alloc(t->arena, cap * sizeof *cells);
        if (t->count)
            memcpy(cells, t->cells, t->count * sizeof *cells);
        t->cells = cells, t->cap = cap;
    }
    t->cells[t->count++] = cell;
}

static size_t width_of(str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static void put(FILE *out, str cell, size_t width, bool right, bool last)
{
    size_t fill = width - width_of(cell);
    if (right)
        fprintf(out, "%*s%.*s", (int)fill, "", STR_ARG(cell));
    else
        fprintf(out, "%.*s%*s", STR_ARG(cell), last ? 0 : (int)fill, "");
    fputs(last ? "\n" : "  ", out);
}

void table_print(const struct table *t, FILE *out)
{
    size_t width[TABLE_COLUMNS_MAX];
    bool right[TABLE_COLUMNS_MAX];
    str head[TABLE_COLUMNS_MAX];
    for (size_t c = 0; c < t->columns; c++) {
        right[c] = t->heads[c][0] == '>';
        head[c] = str_of(t->heads[c] + right[c]);
        width[c] = width_of(head[c]);
    }
    for (size_t i = 0; i < t->count; i++)
        if (width_of(t->cells[i]) > width[i % t->columns])
            width[i % t->columns] = width_of(t->cells[i]);
    for (size_t c = 0; c < t->columns; c++)
        put(out, head[c], width[c], right[c], c + 1 == t->columns);
    for (size_t i = 0; i < t->count; i++) {
        size_t c = i % t->columns;
        put(out, t->cells[i], width[c], right[c], c + 1 == t->columns);
    }
}

str format_duration(struct arena *a, int64_t s)
{
    static const struct {
        int64_t seconds;
        char unit;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
    for (size_t i = 0; i + 1 < array_len(units); i++) {
        if (s < units[i].seconds)
            continue;
        int64_t rest = s % units[i].seconds / units[i + 1].seconds;
        return rest ? arena_printf(a, "%lld%c%lld%c", (long long)(s / units[i].seconds),
                                   units[i].unit, (long long)rest, units[i + 1].unit)
                    : arena_printf(a, "%lld%c", (long long)(s / units[i].seconds), units[i].unit);
    }
    return arena_printf(a, "%llds", (long long)s);
}

str format_bytes(struct arena *a, double bytes)
{
    static const char units[] = "bKMGTP";
    size_t i = 0;
    while (bytes >= 1024 && units[i + 1])
        bytes /= 1024, i++;
    return arena_printf(a, i == 0 || bytes >= 10 ? "%.0f%c" : "%.1f%c", bytes, units[i]);
}

str format_latency(struct arena *a, double seconds)
{
    if (seconds <= 0)
        return STR("-");
    return seconds < 1 ? arena_printf(a, "%.1fms", seconds * 1e3)
                       : arena_printf(a, "%.1fs", seconds);
}
