/* table: options.def as rows that the loader, the printer and the tests walk. */
#ifndef PEMBERLEY_NODE_CONF_TABLE_H
#define PEMBERLEY_NODE_CONF_TABLE_H

#include "node/conf/conf.h"

enum conf_kind {
    CONF_NAME,
    CONF_TEXT,
    CONF_ENDPOINT, /* host:port of one machine */
    CONF_COUNT,
    CONF_COUNT_AUTO,
    CONF_SIZE,
    CONF_DURATION,
    CONF_RATE,
    CONF_RATE_AUTO,
    CONF_BYTE_RATE,
    CONF_MEMORY,
    CONF_SWITCH,
    CONF_WORD,
    CONF_FLAGS,
    CONF_WORDS,
    CONF_LIST,
    CONF_JIDS,
    CONF_ADDRESSES,
    CONF_ENDPOINTS, /* of machines, or unix:/path */
    CONF_NETS,
    CONF_URIS,
    CONF_SERVICES, /* stun:, turn:, … (conf_service_parse) */
};

struct conf_row {
    const char *path; /* "limits.c2s.stanza_max"; of a host's option its name alone */
    enum conf_kind kind;
    const char *def, *min, *max; /* min of word kinds: the words */
    char class;                  /* 'L', 'N', 'R' */
    const char *sentence;
    size_t at; /* of the field in struct conf or struct conf_host */
};

enum {
#define OPT(field, ...) CONF_ROW_##field,
#include "node/conf/options.def"
    CONF_ROWS
};
enum {
#define HOST_OPT(field, ...) CONF_HOST_ROW_##field,
#include "node/conf/options.def"
    CONF_HOST_ROWS
};
extern const struct conf_row conf_rows[CONF_ROWS];
extern const struct conf_row conf_host_rows[CONF_HOST_ROWS];

bool conf_kind_is_list(enum conf_kind k);
/* Index in conf_rows or conf_host_rows; -1. */
int conf_row_find(str path);
int conf_host_row_find(str name);
/* The option name nearest to a misspelt one, NULL when none is near: for "did you mean". prefix:
 * only options of this section ("limits.c2s."), whose names come back without it. */
const char *conf_row_near(str name, str prefix);
const char *conf_host_row_near(str name);
/* Edit distance of short words; long ones are far from everything. */
unsigned conf_distance(str a, str b);

#endif
