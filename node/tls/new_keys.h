/* new_keys: the SCRAM keys of a new password, derived on the helper thread. The salts are drawn
 * before it starts: the entropy door is the loop's. */
#ifndef PEMBERLEY_NODE_TLS_NEW_KEYS_H
#define PEMBERLEY_NODE_TLS_NEW_KEYS_H

#include "node/tls/helper.h"
#include "pemberley/entropy.h"
#include "pemberley/str.h"

/* blob: in the store's form; wiped when it returns. */
typedef void new_keys_f(void *ctx, str blob);

/* password: as scram_password_prepare gives it. done runs once, in a later turn; not after an
 * error, which is helper_submit's. */
nodiscard err new_keys(struct helper *h, struct entropy *e, str password, uint32_t iterations,
                       new_keys_f *done, void *ctx);

#endif
