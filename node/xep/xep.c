/* The list of extensions, and who serves a namespace. */
#include "node/xep/xep.h"

#include "node/conf/conf.h"
#include "pemberley/metric.h"

const struct xep *const xeps[] = {
#define XEP(name) &xep_##name,
#include "node/xep/xep.def"
#undef XEP
    NULL,
};

_Static_assert(array_len(xeps) == METRIC_SIZE_MODULE, "labels.def: MODULE, roster for NULL");

unsigned xep_index(const struct xep *x)
{
    unsigned i = 0;
    while (xeps[i] != x)
        i++;
    return i;
}

bool xep_active(const struct xep *x, const struct conf *conf, const struct conf_host *host)
{
    if (x == &xep_register && host && host->registration == CONF_REGISTRATION_OFF)
        return false;
    if (x == &xep_services && host && !host->services.count)
        return false;
    return !conf_module_off(conf, host, str_of(x->name));
}

const struct xep_iq *xep_iq_find(str ns, const struct xep **x)
{
    for (size_t i = 0; xeps[i]; i++)
        for (const struct xep_iq *q = xeps[i]->iqs; q && q->ns; q++)
            if (str_eq(ns, str_of(q->ns))) {
                *x = xeps[i];
                return q;
            }
    return NULL;
}
