/* Who replaces index segments. */
#include "steps.h"

/* ---- merger and rebuilder of index segments ------------------------------------------------------------------ */

enum { G_OPEN, G_LIST, G_PACKS, G_READ, G_BEGIN, G_CREATE, G_RENAME, G_COMMIT, G_CLOSE };
/* v: slots of the segments to replace, << 5 slots of the packs to read (rebuilder), << 10 the new content */

static unsigned known_packs(const State *n) {
    unsigned packs = 0;
    for (int p = 0; p < SLOTS; p++) {
        int state = n->c.state[OBJECT(DATA, p)];
        if (state == LIVE || (state == RETIRED && rule[rebuild_keeps_retired])) packs |= 1u << p;
    }
    return packs;
}

static unsigned merged(const State *n, unsigned replaced, bool *ok) {
    unsigned content = 0;
    *ok = true;
    for (int g = 0; g < SLOTS; g++) {
        if (!bit(replaced, g)) continue;
        if (!reads_whole(n, OBJECT(SEGMENT, g))) *ok = false;
        content |= n->d.holds[OBJECT(SEGMENT, g)];
    }
    for (int p = 0; p < SLOTS; p++) { /* rule 9: a retired pack may come back */
        int state = n->c.state[OBJECT(DATA, p)];
        if (state == NONE || state == DELETING || (!rule[merge_keeps_retired] && state != LIVE))
            content &= ~entries(p, ALL_CHUNKS);
    }
    for (int c = 0; c < CHUNKS && !rule[merge_multimap]; c++)
        for (int p = 0, kept = 0; p < SLOTS; p++) {
            if (!(content & entries(p, 1u << c))) continue;
            if (kept) content &= ~entries(p, 1u << c);
            kept = 1;
        }
    return content;
}

void indexer(State n, int me) {
    bool rebuild = job[me].role == REBUILDER;
    int pc = n.a.pc[me], target = OBJECT(SEGMENT, me);
    unsigned replaced = n.a.v[me] & 31, packs = n.a.v[me] >> 5 & 31, content = 0;
    bool ok = true;
    if ((pc == G_LIST || pc == G_PACKS || pc == G_BEGIN || pc == G_COMMIT) && !has_lease(&n, me)) {
        step(&n, me, FAILED, "finds its lease gone");
        return;
    }
    switch (pc) {
    case G_OPEN:
        lease_open(&n, me);
        step(&n, me, rebuild && !rule[rebuild_one_txn] ? G_PACKS : G_LIST, "lease.open");
        break;
    case G_PACKS: /* only where that rule is off: the packs are listed before the segments */
        n.a.v[me] = known_packs(&n) << 5;
        step(&n, me, G_LIST, "lists packs");
        break;
    case G_LIST:
        replaced = live_segments(&n);
        if (!rebuild) { /* leaves alone what it knows that it cannot read */
            for (int g = 0; g < SLOTS; g++)
                if (bit(n.c.suspect, OBJECT(SEGMENT, g))) replaced &= ~(1u << g);
            if (!(replaced & (replaced - 1))) {
                step(&n, me, G_CLOSE, "finds nothing to merge");
                break;
            }
        }
        n.a.v[me] |= replaced | (rebuild && rule[rebuild_one_txn] ? known_packs(&n) << 5 : 0);
        step(&n, me, G_READ, rebuild ? "lists segments and packs" : "lists segments");
        break;
    case G_READ:
        if (rebuild) {
            for (int p = 0; p < SLOTS; p++)
                if (bit(packs, p) && on_disk(&n, OBJECT(DATA, p)))
                    content |= entries(p, n.d.holds[OBJECT(DATA, p)] & ALL_CHUNKS);
        } else {
            content = merged(&n, replaced, &ok);
            for (int g = 0; g < SLOTS; g++)
                if (bit(replaced, g) && !on_disk(&n, OBJECT(SEGMENT, g)) && has_lease(&n, me) &&
                    !lost_by_restore(&n, OBJECT(SEGMENT, g)))
                    violation("merger: a segment is gone under its lease");
        }
        n.a.v[me] = replaced | content << 10;
        step(&n, me, ok ? G_BEGIN : FAILED, rebuild ? "reads the packs' tables" : "reads the segments");
        break;
    case G_BEGIN:
        begin(&n, me, SEGMENT, n.a.v[me] >> 10);
        n.a.v[me] = replaced;
        step(&n, me, G_CREATE, "put.begin");
        break;
    case G_CREATE: step(&n, me, put_create(&n, me) ? G_RENAME : FAILED, "put.file: create in tmp/"); break;
    case G_RENAME: step(&n, me, put_rename(&n, me) ? G_COMMIT : FAILED, "put.file: fsync, rename"); break;
    case G_COMMIT:
        if (!rule[rebuild ? rebuild_cas : merge_cas]) replaced = live_segments(&n); /* "the list" */
        for (int g = 0; g < SLOTS; g++)
            if (bit(replaced, g) && n.c.state[OBJECT(SEGMENT, g)] != LIVE) ok = false;
        if (ok) {
            for (int g = 0; g < SLOTS; g++)
                if (bit(replaced, g)) retire_object(&n, OBJECT(SEGMENT, g));
            make_live(&n, target);
        }
        step(&n, me, G_CLOSE, ok ? "commit: the segments it read are replaced" : "finds the list changed: gives up");
        break;
    case G_CLOSE:
        lease_end(&n, me);
        step(&n, me, DONE, "lease.close");
        break;
    }
}
