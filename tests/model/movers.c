/* Who moves live bytes out of packs: data packs, metadata packs. */
#include "steps.h"

/* ---- repacker: what lives of one data pack moves to a new one ------------------------------------------------ */

enum { R_OPEN, R_PLAN, R_READ, R_BEGIN, R_CREATE, R_RENAME, R_LIVE, R_MOVE_B, R_MOVE_C, R_CLOSE };
/* v: uses of B << 0 and of C << 2 as planned, chunks to copy << 4 */

static void move_uses(State *n, int me, int b) {
    int from = job[me].from, target = OBJECT(DATA, me);
    unsigned planned = n->a.v[me] >> 2 * b & 3, now = n->c.uses[b] >> 2 * from & 3;
    if (n->c.blob[b] != LIVE || !now || !sees_object(n, target, me)) return;
    if (rule[repack_current_uses]) {
        if (now & ~n->d.holds[target]) return; /* it needs what we did not copy */
    } else if (!planned) {
        return;
    }
    n->c.uses[b] = (uint16_t)((n->c.uses[b] & ~entries(from, ALL_CHUNKS)) | entries(me, now));
    if (n->c.state[target] == RETIRED) make_live(n, target);
}

void repacker(State n, int me) {
    int pc = n.a.pc[me], from = job[me].from, source = OBJECT(DATA, from);
    unsigned chunks = n.a.v[me] >> 4 & 3;
    if ((pc == R_PLAN || pc == R_BEGIN || (pc >= R_LIVE && pc < R_CLOSE)) && !has_lease(&n, me)) {
        step(&n, me, FAILED, "finds its lease gone");
        return;
    }
    switch (pc) {
    case R_OPEN:
        lease_open(&n, me);
        step(&n, me, R_PLAN, "lease.open");
        break;
    case R_PLAN:
        n.a.v[me] = 0;
        if (n.c.state[source] == LIVE)
            for (int b = 0; b < LAYERS; b++)
                if (n.c.blob[b] == LIVE) {
                    unsigned now = n.c.uses[b] >> 2 * from & 3;
                    n.a.v[me] |= now << 2 * b | now << 4;
                }
        if (n.a.v[me]) name_object(&n, me, source);
        step(&n, me, n.a.v[me] ? R_READ : R_CLOSE, "plan, name(source pack)");
        break;
    case R_READ:
        if (!on_disk(&n, source)) {
            if (has_lease(&n, me) && !lost_by_restore(&n, source))
                violation("repacker: the source pack is gone under its lease");
            step(&n, me, FAILED, "cannot read the source pack");
            break;
        }
        if (rule[repack_verifies]) chunks &= ~(unsigned)n.d.rot[source];
        n.a.v[me] = (n.a.v[me] & 15) | chunks << 4;
        step(&n, me, chunks ? R_BEGIN : R_CLOSE, "reads and verifies the source pack");
        break;
    case R_BEGIN:
        begin(&n, me, DATA, chunks);
        begin(&n, me, SEGMENT, entries(me, chunks));
        step(&n, me, R_CREATE, "put.begin");
        break;
    case R_CREATE: step(&n, me, put_create(&n, me) ? R_RENAME : FAILED, "put.file: create in tmp/"); break;
    case R_RENAME:
        if (!put_rename(&n, me)) {
            step(&n, me, FAILED, "put.file: fsync, rename");
            break;
        }
        if (!rule[repack_verifies]) n.d.rot[OBJECT(DATA, me)] = n.d.rot[source] & chunks; /* copied, rot and all */
        step(&n, me, R_LIVE, "put.file: fsync, rename");
        break;
    case R_LIVE:
        make_live(&n, OBJECT(DATA, me));
        make_live(&n, OBJECT(SEGMENT, me));
        name_object(&n, me, OBJECT(DATA, me));
        step(&n, me, R_MOVE_B, "new pack and segment live, named");
        break;
    case R_MOVE_B:
        if (rule[repack_per_blob]) {
            move_uses(&n, me, B);
        } else { /* "all edges of P" */
            for (int b = 0; b < LAYERS; b++) {
                unsigned now = n.c.uses[b] >> 2 * from & 3;
                n.c.uses[b] = (uint16_t)((n.c.uses[b] & ~entries(from, ALL_CHUNKS)) | entries(me, now));
            }
        }
        step(&n, me, R_MOVE_C, "moves the edge of B");
        break;
    case R_MOVE_C:
        if (rule[repack_per_blob]) move_uses(&n, me, C);
        step(&n, me, R_CLOSE, "moves the edge of C");
        break;
    case R_CLOSE:
        lease_end(&n, me);
        step(&n, me, DONE, "lease.close");
        break;
    }
}

/* ---- repacker of metadata packs: live records of all metadata packs move to a new one ------------------------ */

enum { M_OPEN, M_PLAN, M_READ, M_BEGIN, M_CREATE, M_RENAME, M_LIVE, M_MOVE /* .. + BLOBS */, M_CLOSE = M_MOVE + BLOBS };
/* v: where each planned blob's record was, 1 + slot, three bits a blob; then << 12 its records, two bits a blob */

void metarepacker(State n, int me) {
    int pc = n.a.pc[me], target = OBJECT(META, me);
    if ((pc == M_PLAN || pc == M_BEGIN || (pc >= M_LIVE && pc < M_CLOSE)) && !has_lease(&n, me)) {
        step(&n, me, FAILED, "finds its lease gone");
        return;
    }
    switch (pc) {
    case M_OPEN:
        lease_open(&n, me);
        step(&n, me, M_PLAN, "lease.open");
        break;
    case M_PLAN:
        for (int b = 0; b < BLOBS; b++) {
            int o = n.c.place[b] - 1;
            if (n.c.blob[b] != LIVE || o < 0 || KIND(o) != META || n.c.state[o] != LIVE) continue;
            n.a.v[me] |= (unsigned)(1 + SLOT(o)) << 3 * b;
            name_object(&n, me, o);
        }
        step(&n, me, n.a.v[me] ? M_READ : M_CLOSE, "plan, name(metadata packs)");
        break;
    case M_READ: {
        unsigned records = 0;
        for (int b = 0; b < BLOBS; b++) {
            int slot = (int)(n.a.v[me] >> 3 * b & 7) - 1;
            if (slot < 0) continue;
            if (!on_disk(&n, OBJECT(META, slot))) {
                if (has_lease(&n, me) && !lost_by_restore(&n, OBJECT(META, slot)))
                    violation("repacker: a metadata pack is gone under its lease");
                step(&n, me, FAILED, "cannot read a metadata pack");
                return;
            }
            records |= record(&n, OBJECT(META, slot), b) << 2 * b;
        }
        n.a.v[me] |= records << 12;
        step(&n, me, records ? M_BEGIN : M_CLOSE, "reads the records");
        break;
    }
    case M_BEGIN:
        begin(&n, me, META, n.a.v[me] >> 12);
        n.a.v[me] &= 0xfff;
        step(&n, me, M_CREATE, "put.begin");
        break;
    case M_CREATE: step(&n, me, put_create(&n, me) ? M_RENAME : FAILED, "put.file: create in tmp/"); break;
    case M_RENAME: step(&n, me, put_rename(&n, me) ? M_LIVE : FAILED, "put.file: fsync, rename"); break;
    case M_LIVE:
        make_live(&n, target);
        name_object(&n, me, target);
        step(&n, me, M_MOVE, "new metadata pack live, named");
        break;
    case M_CLOSE:
        lease_end(&n, me);
        step(&n, me, DONE, "lease.close");
        break;
    default: {
        unsigned sources = 0;
        for (int b = 0; b < BLOBS; b++)
            if (n.a.v[me] >> 3 * b & 7) sources |= 1u << ((n.a.v[me] >> 3 * b & 7) - 1);
        for (int b = pc - M_MOVE; b < BLOBS; b++) {
            int slot = (int)(n.a.v[me] >> 3 * b & 7) - 1, o = n.c.place[b] - 1;
            bool meta = n.c.blob[b] == LIVE && o >= 0 && KIND(o) == META && sees_object(&n, target, me);
            bool planned = slot >= 0 && (n.d.holds[target] >> 2 * b & 3);
            bool still = meta && planned && (o == OBJECT(META, slot) || !rule[meta_cas]);
            if (!rule[meta_per_blob]) still = meta && bit(sources, SLOT(o)); /* "all records of M" */
            if (still) {
                n.c.place[b] = (uint8_t)(target + 1);
                if (n.c.state[target] == RETIRED) make_live(&n, target);
            }
            if (rule[meta_per_blob] && planned) { /* one batch; the blobs that were not planned cost no step */
                step(&n, me, M_MOVE + b + 1, "moves the record of one blob");
                return;
            }
        }
        step(&n, me, M_CLOSE, "has moved all records");
    }
    }
}
