/*
 * delivery.pml: custody of a stanza, from client A to client B (README.md). Spin 6.
 *
 * A (0198) sends M stanzas through edge E1 or E3 and home H1; home H2 gives them to B (0198) through edge E2 or E3'.
 * S1, S2 are the slots' successors; N1, N2 the homes after a death (any shard that did not die). D_* says which node
 * (domain) each of them is on; ONE domain dies at any point; each client may lose its connection once, at any point.
 * What is in flight from a dead process may still arrive until the receiver learns of the death, or be lost.
 *
 * A channel that carries consecutive numbers is the pair (next to read, last sent); a copy of B's queue is (n, pk), two bits
 * per entry; a client's read and write are one step with its edge's (bytes lost in TCP = the step has not happened).
 */
#ifndef M
#define M 2
#endif
#ifndef D_E1          /* default: everybody alone = one node, several processes */
#define D_E1 1
#define D_H1 2
#define D_H2 3
#define D_E2 4
#endif
#ifndef D_S1
#define D_S1 5
#endif
#ifndef D_S2
#define D_S2 6
#endif
#ifndef D_E3
#define D_E3 7
#endif
#define NONE 9

byte target, dead;                      /* the domain that will die, that has died (0: none) */
bit  dropA, dropB;                      /* connections still to be lost */

/* client A and its edges (0: E1, 1: E3) */
byte a_ack, a_conn = 1, a_res;          /* h told; edge+1 connected to; edge+1 asked to resume */
bit  ea_has[2]; byte ea_rcv[2], ea_h[2], ea_gen[2]; bit ea_att[2];
byte ci_nx[2] = 1, ci_la[2];            /* IN: next to read, last sent */
/* home of A (0: H1, 1: N1) and its successor's copy */
bit  ha_i, ha_up = 1, ha_resing, ha_view; byte ha_rcv, ha_done, ha_mir, ha_gen, ha_sec;
byte s1_h; bit s1_att;
/* ROUTE [home of A][home of B] and its acks */
byte rn[4] = 1, rl[4], ra[4];
#define R(i,j) ((i)*2+(j))
/* home of B (0: H2, 1: N2) and its successor's copy */
bit  hb_j, hb_up = 1, hb_kA, hb_resing; byte hb_n, hb_pk, hb_mark, hb_held, hb_mack, hb_gen, hb_sec, hb_old = NONE;
byte s2_n, s2_pk; bit s2_att;
/* client B and its edges (0: E2, 1: E3') */
byte b_conn = 1, b_res, b_h, b_last;
bit  eb_has[2]; byte eb_n[2], eb_pk[2], eb_w[2], eb_gen[2]; bit eb_att[2];
byte co_n[2], co_pk[2];                 /* OUT: what has been sent */
byte hv[2], hv_gen[2];                  /* `held` under way */
byte b_ca;                              /* what B has acknowledged */
byte x;                                 /* scratch, 0 between steps */

#define domA(e)   ((e) == 0 -> D_E1 : D_E3)
#define domB(e)   ((e) == 0 -> D_E2 : D_E3)
#define live(d)   ((d) != dead)
#define domHA     (ha_i == 0 -> D_H1 : 8)
#define domHB     (hb_j == 0 -> D_H2 : 8)
#define sameA(e)  (domA(e) == domHA)
#define sameB(e)  (domB(e) == domHB)
#define ent(pk,k) (((pk) >> (2*(k))) & 3)

#ifdef MUT_NO_SECONDARY                 /* the edge's copy counts although it dies with the home */
#define mirA(e) false
#define mirB(e) false
#else
#define mirA(e) sameA(e)
#define mirB(e) sameB(e)
#endif
#ifdef MUT_TELL_FIRST                   /* <a h/> before the successor knows h */
#define tellA   ha_done
#else
#define tellA   (mirA(ha_sec) && live(domA(ha_sec)) -> ha_mir : ha_done)
#endif
#ifdef MUT_WRITE_FIRST                  /* OUT before the mirror has acked */
#define outB    hb_n
#else
#define outB    (mirB(hb_sec) -> hb_mack : hb_n)
#endif
#ifdef MUT_NO_DEDUPE
#define known(ord) false
#else
#define known(ord) ((hb_mark >> (ord)) & 1)
#endif
#ifdef MUT_NO_GEN                       /* old attachments are obeyed */
#define genA(e) true
#define genB(e) true
#else
#define genA(e) (ea_gen[e] == ha_gen)
#define genB(e) (hv_gen[e] == hb_gen && (e) == hb_sec)
#endif
#ifdef MUT_RESUME_NO_WAIT               /* resume answered with what was received */
#define waitA true
#define hA    ha_rcv
#else
#define waitA (ha_done == ha_rcv)
#define hA    ha_done
#endif
#ifdef MUT_NO_FENCE                     /* frames of a dead home are obeyed */
#define oldA true
#else
#define oldA (!hb_kA)
#endif
#ifdef MUT_NO_BARRIER
#define barA true
#define barB true
#else
#define barA ((ea_att[0] || !live(D_E1)) && (ea_att[1] || !live(D_E3)) && (s1_att || !live(D_S1)))
#define barB ((eb_att[0] || !live(D_E2)) && (eb_att[1] || !live(D_E3)) && (s2_att || !live(D_S2)))
#endif

inline marks(from) {                    /* marks of a session out of its copy (kept beyond the client's ack) */
    x = from; hb_mark = 0;
    do
    :: x < hb_n -> hb_mark = hb_mark | (1 << ent(hb_pk, x)); x++
    :: else -> break
    od; x = 0
}
/* how many of 1, 2, .. M are within the first n of the queue */
#define has(k,n)  (((n) > 0 && ent(hb_pk,0) == k) || ((n) > 1 && ent(hb_pk,1) == k) || ((n) > 2 && ent(hb_pk,2) == k) || ((n) > 3 && ent(hb_pk,3) == k))
#define prefix(n) (has(1,n) -> (has(2,n) -> (has(3,n) -> 3 : 2) : 1) : 0)
#ifdef MUT_ACK_EARLY                    /* acked when read, not when held */
#define safeB prefix(hb_n)
#else
#define safeB prefix(hb_held)
#endif
inline merge(n, pk) {                   /* copies of one queue are prefixes of one another */
    if
    :: n > hb_n -> assert((pk & ((1 << (2*hb_n)) - 1)) == hb_pk); hb_n = n; hb_pk = pk
    :: else -> assert((hb_pk & ((1 << (2*n)) - 1)) == pk)
    fi
}
inline home_gone() {
    if
    :: D_H1 == dead -> ha_i = 1; ha_up = 0; ha_rcv = 0; ha_done = 0; ha_mir = 0; ha_gen = 0; ha_sec = 0; ha_resing = 0; ha_view = 0
    :: else
    fi;
    if
    :: D_H2 == dead -> hb_j = 1; hb_up = 0; hb_n = 0; hb_pk = 0; hb_mark = 0; hb_held = 0; hb_mack = 0; hb_gen = 0; hb_sec = 0; hb_resing = 0; hb_old = NONE; hb_kA = 0
    :: else
    fi;
    if :: a_conn > 0 && !live(domA(a_conn-1)) -> a_conn = 0 :: else fi;
    if :: a_res > 0 && !live(domA(a_res-1)) -> a_res = 0; ha_resing = 0 :: else fi;
    if :: b_conn > 0 && !live(domB(b_conn-1)) -> b_conn = 0 :: else fi;
    if :: b_res > 0 && !live(domB(b_res-1)) -> b_res = 0; hb_resing = 0 :: else fi
}

init {
    atomic {
        ea_has[0] = 1; eb_has[0] = 1;
#ifdef TARGET                           /* fixed, to cut the state space into separate runs */
        target = TARGET; dropA = DROPA; dropB = DROPB
#else
        if :: target = 0 :: target = D_E1 :: target = D_H1 :: target = D_H2 :: target = D_E2 :: target = D_S1 :: target = D_S2 :: target = D_E3 fi;
        if :: dropA = 0 :: dropA = 1 fi;
        if :: dropB = 0 :: dropB = 1 fi
#endif
    }
    do
    :: atomic { target > 0 && dead == 0 -> dead = target; home_gone() }

#define e 0
#include "edge.inc"
#undef e
#define e 1
#include "edge.inc"
#undef e
    /* home of A: acks of ROUTE; h to the successor and back; new owner of B's slot: send again, in order */
    :: atomic { ha_up && ra[R(ha_i,ha_view)] > ha_done && ha_done < ha_rcv ->
        ha_done = (ra[R(ha_i,ha_view)] < ha_rcv -> ra[R(ha_i,ha_view)] : ha_rcv) }
    :: atomic { ha_up && !ha_i && live(D_S1) && s1_h < ha_done -> s1_h = ha_done }
    :: atomic { ha_up && ha_mir < (live(D_S1) && !ha_i -> s1_h : ha_done) -> ha_mir = (live(D_S1) && !ha_i -> s1_h : ha_done) }
    :: atomic { ha_up && hb_j && !ha_view -> ha_view = 1; rn[R(ha_i,1)] = ha_done+1; rl[R(ha_i,1)] = ha_rcv }
    :: atomic { ha_i && !ha_up && live(D_S1) && !s1_att -> s1_att = 1; if :: s1_h > ha_done -> ha_done = s1_h :: else fi }
    :: atomic { ha_i && !ha_up && barA -> ha_up = 1; ha_rcv = ha_done; rn[R(1,0)] = ha_done+1; rl[R(1,0)] = ha_done; rn[R(1,1)] = ha_done+1; rl[R(1,1)] = ha_done }

    /* home of B: ROUTE, from the old home of A (until its death is known) or the new one (from then on) */
    :: atomic { hb_up && rn[R(0,hb_j)] <= rl[R(0,hb_j)] && oldA -> x = rn[R(0,hb_j)]; rn[R(0,hb_j)]++;
        if :: known(x) :: else -> assert(hb_n < 4); hb_mark = hb_mark | (1 << x); hb_pk = hb_pk | (x << (2*hb_n)); hb_n++ fi; x = 0 }
    :: atomic { hb_up && hb_kA && rn[R(1,hb_j)] <= rl[R(1,hb_j)] -> x = rn[R(1,hb_j)]; rn[R(1,hb_j)]++;
        if :: known(x) :: else -> assert(hb_n < 4); hb_mark = hb_mark | (1 << x); hb_pk = hb_pk | (x << (2*hb_n)); hb_n++ fi; x = 0 }
    :: atomic { hb_up && ha_i && !hb_kA -> hb_kA = 1 }
    /* ack of ROUTE */
    :: atomic { hb_up && ra[R(hb_kA,hb_j)] < safeB -> ra[R(hb_kA,hb_j)] = safeB }
    /* MIRROR and its ack; a secondary that died is replaced by the next successor */
    :: atomic { hb_up && !hb_j && mirB(hb_sec) && live(D_S2) && s2_n < hb_n -> s2_pk = s2_pk | (ent(hb_pk, s2_n) << (2*s2_n)); s2_n++ }
    :: atomic { hb_up && mirB(hb_sec) && live(D_S2) && hb_mack < s2_n -> hb_mack = s2_n }
    :: atomic { hb_up && mirB(hb_sec) && !live(D_S2) && hb_mack < hb_n -> hb_mack = hb_n }
    :: atomic { hb_up && mirB(hb_sec) && hb_held < hb_mack -> hb_held = hb_mack }
    :: atomic { hb_up && !live(domB(hb_sec)) && hb_held < hb_n -> hb_held = hb_n }
    :: atomic { hb_j && !hb_up && live(D_S2) && !s2_att -> s2_att = 1; merge(s2_n, s2_pk) }
    :: atomic { hb_j && !hb_up && barB -> hb_up = 1; hb_held = hb_n;
#ifdef MUT_FORGET
        marks(b_ca)
#else
        marks(0)
#endif
        }
    :: else -> break
    od;
    assert(b_last == M);                /* everything came, once, in order */
    assert(a_ack == M)                  /* and its sender knows */
}
