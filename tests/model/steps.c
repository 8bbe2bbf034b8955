/* The helpers that the processes share. */
#include "steps.h"

void step(State *n, int me, int next, const char *what) {
    int at = n->a.pc[me];
    n->a.pc[me] = (uint8_t)next;
    if (next >= DONE) n->a.v[me] = n->a.u[me] = 0;
    emit(n, me * 32 + at, what);
}

bool reads_whole(const State *s, int o) { return on_disk(s, o) && !s->d.rot[o]; }

/* After a restore a file may be missing; until check no row is to be trusted, after it what is missing is suspect. */
bool lost_by_restore(const State *s, int o) {
    return s->a.restored == 2 && (s->c.mismatch || bit(s->c.suspect, o));
}

unsigned record(const State *s, int o, int b) {
    if (!on_disk(s, o) || bit(s->d.rot[o], b)) return 0;
    return s->d.holds[o] >> 2 * b & 3;
}

void begin(State *n, int me, int kind, unsigned holds) {
    n->a.u[me] |= began(kind);
    put_begin(n, me, kind, holds);
    if (!rule[put_row_first]) n->c.state[OBJECT(kind, me)] = NONE; /* the row comes with the commit only */
}

bool made(const State *s, int me, int kind) { return s->a.u[me] & began(kind); }

bool packs_seen(State *n, int me, unsigned uses) {
    for (int p = 0; p < SLOTS; p++) {
        int o = OBJECT(DATA, p);
        if (!(uses >> 2 * p & 3)) continue;
        bool suspect = bit(n->c.suspect, o);
        if (suspect && !rule[suspect_at_commit] && n->c.state[o] == LIVE) continue;
        if (!sees_object(n, o, me)) {
            if (!suspect && !n->c.mismatch && !bytes_only)
                violation("a pack answered present, the bytes were dropped, and at the commit it is gone");
            return false;
        }
        if (n->c.state[o] != LIVE) make_live(n, o);
    }
    return true;
}

void granted(const State *n, int b) {
    if ((n->a.known >> 7 || n->a.restored == 2) && !readable(n, b, true))
        violation("a commit was granted for %c, known to be damaged: %s", blob_letter[b], why);
}
