/* spread: see spread.h. */
#include "bench/load/spread.h"

static unsigned cell_of(uint64_t us)
{
    unsigned octave = 63 - (unsigned)__builtin_clzll(us | 1);
    if (octave < 5)
        return (unsigned)us;
    return (octave - 4) * SPREAD_STEPS + (unsigned)(us >> (octave - 5) & (SPREAD_STEPS - 1));
}

static uint64_t edge_of(unsigned cell)
{
    if (cell < SPREAD_STEPS)
        return cell;
    return (uint64_t)(SPREAD_STEPS + cell % SPREAD_STEPS) << (cell / SPREAD_STEPS - 1);
}

void spread_count(struct spread *h, uint64_t us)
{
    h->n++;
    h->cell[cell_of(us)]++;
    if (us > h->max)
        h->max = us;
}

void spread_add(struct spread *h, const struct spread *more)
{
    h->n += more->n;
    if (more->max > h->max)
        h->max = more->max;
    for (unsigned i = 0; i < SPREAD_CELLS; i++)
        h->cell[i] += more->cell[i];
}

uint64_t spread_at(const struct spread *h, double share)
{
    uint64_t upto = 0;
    if (share >= 1)
        return h->max;
    for (unsigned i = 0; i < SPREAD_CELLS; i++)
        if ((upto += h->cell[i]) && (double)upto >= share * (double)h->n)
            return edge_of(i);
    return 0;
}
