#include "pemberley/err.h"

static const struct err_row rows[ERR_MAX] = {
    [ERR_OK] = {ERR_CLASS_LOCAL, "OK", "", "", false, ""},
#define ERR_LOCAL(name, text) [ERR_##name] = {ERR_CLASS_LOCAL, #name, "", "", false, text},
#define ERR_STREAM(name, condition, ends, text) \
    [ERR_STREAM_##name] = {ERR_CLASS_STREAM, #name, condition, "", ends, text},
#define ERR_STANZA(name, condition, type, text) \
    [ERR_STANZA_##name] = {ERR_CLASS_STANZA, #name, condition, type, false, text},
#define ERR_SASL(name, condition, text) \
    [ERR_SASL_##name] = {ERR_CLASS_SASL, #name, condition, "", false, text},
#include "pemberley/err.def"
};

const struct err_row *err_row(err e)
{
    must(e < ERR_MAX);
    return &rows[e];
}
