/* declaration: the XML declaration (XML 1.0 2.8), which only the first bytes of a stream may be. */
#include "proto/xml/chars.h"
#include "proto/xml/scan.h"

static str trimmed(str s)
{
    while (s.n > 0 && is_space((uchar)s.p[0]))
        s = str_skip(s, 1);
    return s;
}

/* Takes ` name = "value"` off *rest, white space before it included, when it has that name. */
static bool take(str *rest, str name, str *value)
{
    str s = trimmed(*rest);
    if (s.p == rest->p || !str_starts(s, name))
        return false;
    s = trimmed(str_skip(s, name.n));
    if (s.n == 0 || s.p[0] != '=')
        return false;
    s = trimmed(str_skip(s, 1));
    if (s.n == 0 || (s.p[0] != '"' && s.p[0] != '\''))
        return false;
    const char *end = memchr(s.p + 1, s.p[0], s.n - 1);
    if (!end)
        return false;
    *value = str_from(s.p + 1, (size_t)(end - s.p) - 1);
    *rest = str_skip(s, value->n + 2);
    return true;
}

static bool is_encoding_name(str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!(xml_class[(uchar)s.p[i]] & CHAR_NAME))
            return false;
    return s.n > 0 && is_start((uchar)s.p[0]) && s.p[0] != '_';
}

/* inner: what is between "<?xml" and "?>". */
static err judge(str inner)
{
    str version, encoding = STR("UTF-8"), standalone = STR("no");
    if (!take(&inner, STR("version"), &version) || !str_is(version, "1.0"))
        return ERR_STREAM_NOT_WELL_FORMED;
    if (take(&inner, STR("encoding"), &encoding) && !is_encoding_name(encoding))
        return ERR_STREAM_NOT_WELL_FORMED;
    if (take(&inner, STR("standalone"), &standalone) && !str_is(standalone, "yes") &&
        !str_is(standalone, "no"))
        return ERR_STREAM_NOT_WELL_FORMED;
    if (trimmed(inner).n > 0)
        return ERR_STREAM_NOT_WELL_FORMED;
    /* RFC 6120 11.6 */
    bool utf8 = encoding.n == 5 && strncasecmp(encoding.p, "utf-8", 5) == 0;
    return utf8 ? ERR_OK : ERR_STREAM_UNSUPPORTED_ENCODING;
}

err scan_declaration(str bytes, uint32_t *used)
{
    const str open = STR("<?xml");
    size_t have = bytes.n < open.n ? bytes.n : open.n;
    if (memcmp(bytes.p, open.p, have) != 0)
        return ERR_STREAM_RESTRICTED_XML; /* a processing instruction */
    if (bytes.n <= open.n)
        return ERR_PARTIAL;
    uchar behind = (uchar)bytes.p[open.n];
    if (!is_space(behind))
        return behind >= 0x80 || (xml_class[behind] & CHAR_NAME) ? ERR_STREAM_RESTRICTED_XML
                                                                 : ERR_STREAM_NOT_WELL_FORMED;
    for (size_t i = open.n; i < bytes.n; i++) {
        uchar c = (uchar)bytes.p[i];
        if (i == SCAN_DECLARATION_MAX)
            return ERR_STREAM_POLICY_VIOLATION;
        if (c == '<' || c >= 0x80 || (c < 0x20 && !is_space(c)))
            return ERR_STREAM_NOT_WELL_FORMED;
        if (c == '>') {
            *used = (uint32_t)i + 1;
            bool closed = bytes.p[i - 1] == '?';
            return closed ? judge(str_from(bytes.p + open.n, i - 1 - open.n))
                          : ERR_STREAM_NOT_WELL_FORMED;
        }
    }
    return ERR_PARTIAL;
}
