/* source: our addresses, see client.h. All of 127.0.0.0/8 is ours. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/client.h"

enum { PER_SOURCE = 4000, UNIT_SOURCES = 16, NETS = 253, LOOPBACK = 0x7f000000 };

bool sources_parse(struct sources *s, const char *text)
{
    char address[64];
    const char *plus = strchr(text, '+');
    struct in_addr in;
    snprintf(address, sizeof address, "%.*s", plus ? (int)(plus - text) : (int)strlen(text), text);
    *s = (struct sources){.count = plus ? (unsigned)atoi(plus + 1) : 1};
    if (inet_pton(AF_INET, address, &in) != 1 || s->count == 0)
        return false;
    s->first = ntohl(in.s_addr);
    return true;
}

void sources_fresh(struct sources *s, uint32_t run)
{
    *s = (struct sources){.first = LOOPBACK + ((1 + run % NETS) << 16) + 2};
}

uint32_t source_of(const struct sources *s, unsigned index, unsigned unit)
{
    if (s->count)
        return s->first + index % s->count;
    return s->first + (unit % UNIT_SOURCES << 8) + index / PER_SOURCE;
}
