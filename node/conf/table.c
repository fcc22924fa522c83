/* options.def as arrays, and the search for what somebody meant. */
#include "node/conf/table.h"

#define CONF_K_NAME CONF_NAME
#define CONF_K_TEXT CONF_TEXT
#define CONF_K_ENDPOINT CONF_ENDPOINT
#define CONF_K_COUNT CONF_COUNT
#define CONF_K_COUNT_AUTO CONF_COUNT_AUTO
#define CONF_K_SIZE CONF_SIZE
#define CONF_K_DURATION CONF_DURATION
#define CONF_K_RATE CONF_RATE
#define CONF_K_RATE_AUTO CONF_RATE_AUTO
#define CONF_K_BYTE_RATE CONF_BYTE_RATE
#define CONF_K_MEMORY CONF_MEMORY
#define CONF_K_SWITCH CONF_SWITCH
#define CONF_K_FLAGS CONF_FLAGS
#define CONF_K_WORDS CONF_WORDS
#define CONF_K_LIST CONF_LIST
#define CONF_K_JIDS CONF_JIDS
#define CONF_K_ADDRESSES CONF_ADDRESSES
#define CONF_K_ENDPOINTS CONF_ENDPOINTS
#define CONF_K_NETS CONF_NETS
#define CONF_K_URIS CONF_URIS
#define CONF_K_SERVICES CONF_SERVICES
#define CONF_K_WORD_LOOP CONF_WORD
#define CONF_K_WORD_REGISTRATION CONF_WORD
#define CONF_K_WORD_BARE CONF_WORD
#define CONF_K_WORD_STRANGERS CONF_WORD
#define CONF_K_WORD_ARCHIVE CONF_WORD
#define CONF_K_WORD_CONFLICT CONF_WORD
#define CONF_K_WORD_TLS CONF_WORD
#define CONF_K_WORD_VERSION CONF_WORD
#define CONF_K_WORD_STORE CONF_WORD
#define CONF_K_WORD_STORE_TLS CONF_WORD
#define CONF_K_WORD_SYNC CONF_WORD
#define CONF_K_WORD_REGISTRY CONF_WORD
#define CONF_K_WORD_REDIS CONF_WORD
#define CONF_K_WORD_LEVEL CONF_WORD
#define CONF_K_WORD_FORMAT CONF_WORD
#define CONF_K_WORD_JIDS CONF_WORD
#define CONF_K_WORD_ADDRESSES CONF_WORD
_Static_assert(sizeof(enum conf_loop) == sizeof(uint32_t), "words are stored as 32 bits");

const struct conf_row conf_rows[CONF_ROWS] = {
#define OPT(field, path, kind, def, min, max, class, sentence) \
    {path, CONF_K_##kind, def, min, max, #class[0], sentence, offsetof(struct conf, field)},
#include "node/conf/options.def"
};

const struct conf_row conf_host_rows[CONF_HOST_ROWS] = {
#define HOST_OPT(field, name, kind, def, min, max, class, sentence) \
    {name, CONF_K_##kind, def, min, max, #class[0], sentence, offsetof(struct conf_host, field)},
#include "node/conf/options.def"
};

bool conf_kind_is_list(enum conf_kind k) { return k >= CONF_FLAGS; }

static int find(const struct conf_row *rows, int n, str path)
{
    for (int i = 0; i < n; i++)
        if (str_eq(path, str_of(rows[i].path)))
            return i;
    return -1;
}

int conf_row_find(str path) { return find(conf_rows, CONF_ROWS, path); }
int conf_host_row_find(str name) { return find(conf_host_rows, CONF_HOST_ROWS, name); }

enum { WORD_MAX = 48 };

unsigned conf_distance(str a, str b)
{
    if (a.n > WORD_MAX || b.n > WORD_MAX)
        return WORD_MAX;
    unsigned row[WORD_MAX + 1];
    for (unsigned j = 0; j <= b.n; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned best = diagonal + (a.p[i - 1] != b.p[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[b.n];
}

static const char *near(const struct conf_row *rows, int n, str name, str prefix)
{
    unsigned best = (unsigned)name.n / 3 + 2; /* farther off it is another word */
    const char *found = NULL;
    for (int i = 0; i < n; i++) {
        str path = str_of(rows[i].path);
        if (!str_starts(path, prefix))
            continue;
        unsigned d = conf_distance(name, str_skip(path, prefix.n));
        if (d < best)
            best = d, found = rows[i].path + prefix.n;
    }
    return found;
}

const char *conf_row_near(str name, str prefix) { return near(conf_rows, CONF_ROWS, name, prefix); }

const char *conf_host_row_near(str name)
{
    return near(conf_host_rows, CONF_HOST_ROWS, name, STR_NONE);
}
