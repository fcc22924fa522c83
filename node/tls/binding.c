/* binding: the hash of a server's certificate for the channel binding tls-server-end-point. The
 * hash function is that of the certificate's own signature, so its AlgorithmIdentifier is read
 * here; the library parses whole certificates only into its big X509 objects, which shards do
 * without. */
#include <openssl/bytestring.h>
#include <openssl/digest.h>
#include <openssl/nid.h>
#include <openssl/obj.h>

#include "node/tls/inside.h"

/* RSASSA-PSS keeps its hash in the parameters (RFC 4055 3.1); the default is SHA-1. */
static int pss_hash(CBS *parameters)
{
    CBS seq, tagged, hash, oid;
    int has = 0;

    if (!CBS_get_asn1(parameters, &seq, CBS_ASN1_SEQUENCE) ||
        !CBS_get_optional_asn1(&seq, &tagged, &has,
                               CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0))
        return NID_undef;
    if (!has)
        return NID_sha1;
    if (!CBS_get_asn1(&tagged, &hash, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&hash, &oid, CBS_ASN1_OBJECT))
        return NID_undef;
    return OBJ_cbs2nid(&oid);
}

static int signature_hash(str der)
{
    CBS in, certificate, algorithm, oid;
    int hash = NID_undef, key = NID_undef;

    CBS_init(&in, (const uint8_t *)der.p, der.n);
    if (!CBS_get_asn1(&in, &certificate, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&certificate, NULL, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&certificate, &algorithm, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&algorithm, &oid, CBS_ASN1_OBJECT))
        return NID_undef;
    int nid = OBJ_cbs2nid(&oid);
    if (nid == NID_rsassaPss)
        return pss_hash(&algorithm);
    return OBJ_find_sigid_algs(nid, &hash, &key) ? hash : NID_undef;
}

size_t binding_end_point(str der, unsigned char out[64])
{
    int hash = signature_hash(der);
    const EVP_MD *md = NULL;
    unsigned n = 0;

    if (hash == NID_md5 || hash == NID_sha1)
        md = EVP_sha256();
    else if (hash != NID_undef)
        md = EVP_get_digestbynid(hash);
    _Static_assert(EVP_MAX_MD_SIZE <= 64, "a binding has room for any hash");
    return md && EVP_Digest(der.p, der.n, out, &n, md, NULL) ? n : 0;
}
