/* must: our own invariants, always on. A broken one stops the process with a report (the
 * supervisor starts a new one). No byte from a peer may ever trip one: what peers send is data, and
 * is answered by a row of err.def. */
#ifndef PEMBERLEY_MUST_H
#define PEMBERLEY_MUST_H

/* Called with the report before the process aborts; set once by each main. NULL: stderr only. */
typedef void must_report_f(const char *file, int line, const char *expr);
extern must_report_f *must_report;

_Noreturn void must_failed(const char *file, int line, const char *expr);

#define must(x) \
    do { \
        if (__builtin_expect(!(x), 0)) \
            must_failed(__FILE__, __LINE__, #x); \
    } while (0)

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define nodiscard __attribute__((warn_unused_result))
#define array_len(a) (sizeof(a) / sizeof((a)[0]))

#endif
