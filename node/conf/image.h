/* image: the layout's mark, shared by its writer (draft.c) and its reader (conf.c). It holds the
 * structs' sizes, so that an image of another build is refused. */
#ifndef PEMBERLEY_NODE_CONF_IMAGE_H
#define PEMBERLEY_NODE_CONF_IMAGE_H

#include "node/conf/conf.h"

#define CONF_MAGIC \
    (0x70656d6200000000u | ((uint64_t)sizeof(struct conf) << 16) | sizeof(struct conf_host))

#endif
