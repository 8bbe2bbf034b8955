/* The processes. A process is a program counter and two words of memory; each step is one transaction or one act on
   files, after which anything else may happen. A crash is a process that is never scheduled again. */
#include "model.h"

static bool bit(unsigned mask, int i) { return mask >> i & 1; }
static const unsigned LOW = 0x3ff; /* the uses of all data packs, two bits a slot */
static unsigned began(int kind) { return 1u << (16 + kind); }

static void step(State *n, int me, int next, const char *what) {
    int at = n->a.pc[me];
    n->a.pc[me] = (uint8_t)next;
    if (next >= DONE) n->a.v[me] = n->a.u[me] = 0;
    emit(n, me * 32 + at, what);
}

static bool reads_whole(const State *s, int o) { return on_disk(s, o) && !s->d.rot[o]; }

/* After a restore a file may be missing; until check no row is to be trusted, after it what is missing is suspect. */
static bool lost_by_restore(const State *s, int o) {
    return s->a.restored && (s->c.mismatch || bit(s->c.suspect, o));
}

static unsigned record(const State *s, int o, int b) {
    if (!on_disk(s, o) || bit(s->d.rot[o], b)) return 0;
    return s->d.holds[o] >> 2 * b & 3;
}

/* Begins the objects of `kinds` with what they hold, in one transaction. */
static void begin(State *n, int me, int kind, unsigned holds) {
    n->a.u[me] |= began(kind);
    put_begin(n, me, kind, holds);
    if (!rule[put_row_first]) n->c.state[OBJECT(kind, me)] = NONE; /* the row comes with the commit only */
}

static bool made(const State *s, int me, int kind) { return s->a.u[me] & began(kind); }

/* The index hits that a commit leans on: all must still be seen; retired ones come back. */
static bool packs_seen(State *n, int me, unsigned uses) {
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

/* ---- writer -------------------------------------------------------------------------------------------------- */

enum { OPEN, LOOK_UP_BLOB, NAME_LATER, LOOK_UP, NAME_PACKS, BEGIN_PUT, CREATE, RENAME, COMMIT, COMMIT_LAYER, CLOSE };
/* v: bit 0 the layer was answered present, bit 1 the manifest was; bits 2-3 the chunks that we write ourselves */

static int after_look(const Job *j, unsigned have) {
    bool wants_manifest = j->manifest >= 0;
    if (!(have & 1)) return j->packed ? LOOK_UP : BEGIN_PUT;
    return wants_manifest && !(have & 2) ? BEGIN_PUT : j->two ? COMMIT_LAYER : COMMIT;
}

static bool answered(State *n, int me, int b) {
    bool yes = sees_blob(n, b, me);
    if (yes && rule[name_in_txn]) name_blob(n, me, b);
    return yes;
}

/* A blob that was answered present: still seen? Comes back if it was retired. False: the command fails. */
static bool still_present(State *n, int me, int b) {
    bool hurt = damaged(n, b);
    if (hurt && !rule[suspect_at_commit] && n->c.blob[b] == LIVE) return true;
    if (!sees_blob(n, b, me)) {
        if (rule[commit_fence] && !hurt && !n->c.mismatch && !bytes_only)
            violation("a blob answered present, the bytes were dropped, and at the commit it is gone");
        return false;
    }
    if (n->c.blob[b] == RETIRED) revive(n, b);
    return true;
}

/* live and sound: theirs stays, ours dies with the lease. Live and damaged, or not live: ours. */
static bool keeps_theirs(const State *n, int b) {
    return n->c.blob[b] == LIVE && !(damaged(n, b) && rule[heal_in_commit]) && !n->c.mismatch;
}

static bool commit_layer(State *n, int me) {
    const Job *j = &job[me];
    int b = j->layer;
    unsigned own = n->a.v[me] >> 2 & 3, uses = n->a.u[me] & LOW;
    if (n->a.v[me] & 1) return still_present(n, me, b);
    if (keeps_theirs(n, b)) {
        if (!rule[only_used_live])
            for (int k = 0; k < KINDS; k++)
                if (made(n, me, k)) make_live(n, OBJECT(k, me));
        return true;
    }
    if (!packs_seen(n, me, uses)) return false;
    if (own) {
        make_live(n, OBJECT(DATA, me));
        make_live(n, OBJECT(SEGMENT, me));
        uses |= entries(me, own);
    }
    int o = OBJECT(j->packed ? META : LOOSE, me);
    make_live(n, o);
    n->c.place[b] = (uint8_t)(o + 1);
    n->c.uses[b] = (uint16_t)(j->packed ? uses : 0);
    blob_live(n, b);
    return true;
}

static bool commit_manifest(State *n, int me) {
    int m = job[me].manifest, o = OBJECT(META, me);
    if (n->a.v[me] & 2) {
        if (!still_present(n, me, m)) return false;
    } else if (!keeps_theirs(n, m)) {
        make_live(n, o);
        n->c.place[m] = (uint8_t)(o + 1);
        blob_live(n, m);
    }
    n->c.tags |= 1 << (m - X);
    return true;
}

/* What a successful commit says is there must be there: known rot and lost files are no excuse. */
static void granted(const State *n, int b) {
    if ((n->a.known >> 7 || n->a.restored) && !readable(n, b, true))
        violation("a commit was granted for %c, known to be damaged: %s", blob_letter[b], why);
}

static void writer(State n, int me) {
    const Job *j = &job[me];
    int pc = n.a.pc[me];
    State before = n;
    unsigned missing, uses;
    if (pc != OPEN && pc != CREATE && pc != RENAME && pc != CLOSE && !has_lease(&n, me) &&
        !(pc >= COMMIT && !rule[commit_fence])) {
        step(&n, me, FAILED, "finds its lease gone");
        return;
    }
    switch (pc) {
    case OPEN:
        lease_open(&n, me);
        step(&n, me, !j->pipe ? LOOK_UP_BLOB : after_look(j, 0), "lease.open");
        break;
    case LOOK_UP_BLOB:
        n.a.v[me] = answered(&n, me, j->layer);
        if (j->manifest >= 0) n.a.v[me] |= (unsigned)answered(&n, me, j->manifest) << 1;
        step(&n, me, n.a.v[me] && !rule[name_in_txn] ? NAME_LATER : after_look(j, n.a.v[me]), "name(layer, manifest)");
        break;
    case NAME_LATER: /* only where that rule is off: in a transaction of its own, and any row will do */
        for (int i = 0; i < 2; i++) {
            int b = i ? j->manifest : j->layer;
            if (!bit(n.a.v[me], i)) continue;
            if (n.c.blob[b] == NONE) n.a.v[me] &= ~(1u << i);
            else name_blob(&n, me, b);
        }
        step(&n, me, after_look(j, n.a.v[me]), "names what it found (row exists)");
        break;
    case LOOK_UP:
        uses = lookup(&n, me, (unsigned)j->needs, &missing);
        n.a.u[me] |= uses;
        n.a.v[me] |= missing << 2;
        step(&n, me, uses && !rule[name_in_txn] ? NAME_PACKS : BEGIN_PUT, "index lookup, name(packs)");
        break;
    case NAME_PACKS:
        for (int p = 0; p < SLOTS; p++)
            if (n.a.u[me] >> 2 * p & 3) name_object(&n, me, OBJECT(DATA, p));
        step(&n, me, BEGIN_PUT, "names the packs (row exists)");
        break;
    case BEGIN_PUT: {
        unsigned own = n.a.v[me] >> 2 & 3, records = 0;
        if (!(n.a.v[me] & 1)) {
            if (!j->packed) begin(&n, me, LOOSE, 0);
            else records |= (unsigned)j->needs << 2 * j->layer;
        }
        if (j->manifest >= 0 && !(n.a.v[me] & 2)) records |= 1u << 2 * j->manifest;
        if (records) begin(&n, me, META, records);
        if (own) {
            begin(&n, me, DATA, own);
            begin(&n, me, SEGMENT, entries(me, own));
        }
        step(&n, me, CREATE, "put.begin");
        break;
    }
    case CREATE: step(&n, me, put_create(&n, me) ? RENAME : FAILED, "put.file: create in tmp/"); break;
    case RENAME:
        step(&n, me, put_rename(&n, me) ? j->two ? COMMIT_LAYER : COMMIT : FAILED, "put.file: fsync, rename");
        break;
    case COMMIT_LAYER:
        if (!commit_layer(&n, me)) {
            step(&before, me, FAILED, "commit(layer) fails");
            break;
        }
        granted(&n, j->layer);
        name_blob(&n, me, j->layer);
        n.a.v[me] |= 1;
        step(&n, me, COMMIT, "commit(layer), named until its tag");
        break;
    case COMMIT:
        if (!commit_layer(&n, me) || (j->manifest >= 0 && !commit_manifest(&n, me))) {
            step(&before, me, FAILED, "commit fails");
            break;
        }
        granted(&n, j->manifest >= 0 ? j->manifest : j->layer);
        if (j->manifest < 0) n.c.pin[j->layer] = PROMISE;
        step(&n, me, CLOSE, j->manifest < 0 ? "commit(layer, pin)" : "commit(layer, manifest, tag)");
        break;
    case CLOSE:
        lease_end(&n, me);
        step(&n, me, DONE, "lease.close");
        break;
    }
}

/* ---- packer: the loose blob B becomes packed ----------------------------------------------------------------- */

enum { K_OPEN, K_NAME, K_READ, K_LOOK, K_CREATE, K_RENAME, K_REPLAY, K_STAMP, K_COMMIT, K_CLOSE };
/* v: the loose object + 1, chunks of its own << 8 */

static void packer(State n, int me) {
    const Job *j = &job[me];
    int pc = n.a.pc[me], b = j->layer, loose = (int)(n.a.v[me] & 255) - 1;
    unsigned own = n.a.v[me] >> 8, missing;
    State before = n;
    if ((pc == K_NAME || pc == K_LOOK || pc == K_STAMP || pc == K_COMMIT) && !has_lease(&n, me)) {
        step(&n, me, FAILED, "finds its lease gone");
        return;
    }
    switch (pc) {
    case K_OPEN:
        lease_open(&n, me);
        step(&n, me, K_NAME, "lease.open");
        break;
    case K_NAME:
        if (n.c.blob[b] != LIVE || !n.c.place[b] || KIND(n.c.place[b] - 1) != LOOSE) {
            step(&n, me, K_CLOSE, "finds nothing loose");
            break;
        }
        n.a.v[me] = n.c.place[b];
        name_blob(&n, me, b);
        name_object(&n, me, n.c.place[b] - 1);
        step(&n, me, K_READ, "name(blob, loose object)");
        break;
    case K_READ:
        if (on_disk(&n, loose) && !n.d.rot[loose]) {
            step(&n, me, K_LOOK, "reads the loose blob");
            break;
        }
        if (!on_disk(&n, loose) && has_lease(&n, me) && !lost_by_restore(&n, loose))
            violation("packer: the loose blob is gone under its lease");
        step(&n, me, FAILED, "cannot read the loose blob");
        break;
    case K_LOOK:
        n.a.u[me] = lookup(&n, me, (unsigned)j->needs, &missing);
        n.a.v[me] |= missing << 8;
        begin(&n, me, META, (unsigned)j->needs << 2 * b);
        if (missing) {
            begin(&n, me, DATA, missing);
            begin(&n, me, SEGMENT, entries(me, missing));
        }
        step(&n, me, K_CREATE, "name(packs of index hits), put.begin");
        break;
    case K_CREATE: step(&n, me, put_create(&n, me) ? K_RENAME : FAILED, "put.file: create in tmp/"); break;
    case K_RENAME: step(&n, me, put_rename(&n, me) ? K_REPLAY : FAILED, "put.file: fsync, rename"); break;
    case K_REPLAY: {
        unsigned uses = (n.a.u[me] & LOW) | entries(me, own);
        bool good = record(&n, OBJECT(META, me), b), lost = !on_disk(&n, OBJECT(META, me));
        for (int p = 0; p < SLOTS; p++) {
            unsigned chunks = uses >> 2 * p & 3;
            if (!chunks) continue;
            if (!on_disk(&n, OBJECT(DATA, p)) && !lost_by_restore(&n, OBJECT(DATA, p))) lost = true;
            if (!on_disk(&n, OBJECT(DATA, p)) || (n.d.rot[OBJECT(DATA, p)] & chunks)) good = false;
        }
        if (lost && has_lease(&n, me)) violation("packer: a pack is gone under its lease");
        step(&n, me, !good ? FAILED : rule[stamp_in_commit] ? K_COMMIT : K_STAMP, "replays the sealed packs");
        break;
    }
    case K_STAMP: /* only where that rule is off */
        if (n.c.state[loose] == LIVE) n.c.older[loose] = open_leases(&n);
        step(&n, me, K_COMMIT, "takes the number for the retirement to come");
        break;
    case K_COMMIT: {
        bool still = n.c.blob[b] == LIVE && n.c.place[b] == loose + 1;
        if (!still && (rule[pack_cas] || n.c.blob[b] != LIVE)) {
            step(&n, me, K_CLOSE, "finds the blob moved: gives up");
            break;
        }
        if (!packs_seen(&n, me, n.a.u[me] & LOW)) {
            step(&before, me, FAILED, "commit fails");
            break;
        }
        if (own) {
            make_live(&n, OBJECT(DATA, me));
            make_live(&n, OBJECT(SEGMENT, me));
        }
        make_live(&n, OBJECT(META, me));
        n.c.place[b] = (uint8_t)(OBJECT(META, me) + 1);
        n.c.uses[b] = (uint16_t)((n.a.u[me] & LOW) | entries(me, own));
        if (n.c.state[loose] == LIVE) {
            if (rule[stamp_in_commit]) retire_object(&n, loose);
            else n.c.state[loose] = RETIRED;
        }
        granted(&n, b);
        step(&n, me, K_CLOSE, "commit: loose -> packed");
        break;
    }
    case K_CLOSE:
        lease_end(&n, me);
        step(&n, me, DONE, "lease.close");
        break;
    }
}

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

static void repacker(State n, int me) {
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

static void metarepacker(State n, int me) {
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

static void indexer(State n, int me) {
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

/* ---- readers: X and its layer under a lease; B by digest without ---------------------------------------------- */

enum { D_OPEN, D_RESOLVE, D_SEGMENTS, D_READ, D_CLOSE };
/* v: slots of the segments of the snapshot, << 5 the place of B, << 10 the place of X; u: B's uses */

static unsigned snapshot(const State *s, bool leased) {
    unsigned place = s->c.place[B];
    return (place && KIND(place - 1) == META ? live_segments(s) : 0) | place << 5 |
           (leased ? (unsigned)s->c.place[X] << 10 : 0);
}

/* 0 all read · 1 a file is gone · 2 rotten */
static int read_blob(const State *s, int me, int *which) {
    unsigned segments = s->a.v[me] & 31, uses = s->a.u[me];
    int place = (int)(s->a.v[me] >> 5 & 31) - 1, manifest = (int)(s->a.v[me] >> 10 & 31) - 1;
    int result = 0;
    for (int i = 0; i < 2; i++) {
        int o = i ? place : manifest;
        if (o < 0) continue;
        *which = o;
        if (!on_disk(s, o)) return 1;
        if (KIND(o) == META ? !record(s, o, i ? B : X) : s->d.rot[o]) return 2;
    }
    if (KIND(place) == LOOSE) return 0;
    bool blind = false; /* a segment that cannot be read: the packs' own tables will do */
    for (int g = 0; g < SLOTS; g++)
        if (bit(segments, g) && !reads_whole(s, OBJECT(SEGMENT, g))) blind = true;
    for (int c = 0; c < CHUNKS; c++) {
        if (!bit(record(s, place, B), c)) continue;
        int found = 3;
        for (int p = 0; p < SLOTS && found; p++) {
            int o = OBJECT(DATA, p);
            unsigned edge = uses >> 2 * p & 3;
            bool listed = blind && bit(s->d.holds[o] | edge, c);
            for (int g = 0; g < SLOTS; g++)
                if (bit(segments, g) && (s->d.holds[OBJECT(SEGMENT, g)] & entries(p, 1u << c))) listed = true;
            if (!listed || (rule[edge_packs_only] && !edge)) continue;
            int r = !on_disk(s, o) ? 1 : bit(s->d.rot[o], c) ? 2 : 0;
            if (found == 3 || r != 1) found = r; /* rotten here: the next edge may do */
            *which = o;
            if (!rule[edge_packs_only]) break;
        }
        if (found == 2) result = 2;
        else if (found) return 1;
    }
    return result;
}

static void reader(State n, int me) {
    bool leased = me != CAT;
    int which = 0;
    switch (n.a.pc[me]) {
    case D_OPEN:
        if (leased) lease_open(&n, me);
        if (!leased && reachable(&n, B)) n.a.known |= 1;
        step(&n, me, D_RESOLVE, leased ? "lease.open" : "begins");
        break;
    case D_RESOLVE: {
        if (leased && !has_lease(&n, me)) {
            step(&n, me, FAILED, "finds its lease gone");
            break;
        }
        bool there = n.c.blob[B] == LIVE && (!leased || (tagged(&n, X) && n.c.blob[X] == LIVE));
        if (bytes_only && !leased) there = n.c.blob[B] != NONE;
        if (!there) {
            if (!leased && (n.a.known & 1))
                violation("reader without lease: 'not found' for a blob that was reachable all along");
            step(&n, me, leased ? D_CLOSE : DONE, "resolves: not found");
            break;
        }
        if (leased) {
            name_blob(&n, me, X);
            name_blob(&n, me, B);
        }
        n.a.v[me] = snapshot(&n, leased);
        n.a.u[me] = n.c.uses[B];
        if (leased && !rule[age]) { /* without age, names must do, of objects too */
            name_object(&n, me, n.c.place[B] - 1);
            name_object(&n, me, n.c.place[X] - 1);
            for (int p = 0; p < SLOTS; p++) {
                if (n.c.uses[B] >> 2 * p & 3) name_object(&n, me, OBJECT(DATA, p));
                if (bit(n.a.v[me] & 31, p)) name_object(&n, me, OBJECT(SEGMENT, p));
            }
        }
        step(&n, me, n.a.v[me] & 31 ? D_SEGMENTS : D_READ, "resolves: place, edges, segments");
        break;
    }
    case D_SEGMENTS:
    case D_READ: {
        bool opening = n.a.pc[me] == D_SEGMENTS;
        int result = 0;
        if (opening) {
            for (int g = 0; g < SLOTS && !result; g++)
                if (bit(n.a.v[me] & 31, g) && !on_disk(&n, OBJECT(SEGMENT, g)) &&
                    !lost_by_restore(&n, OBJECT(SEGMENT, g))) {
                    result = 1;
                    which = OBJECT(SEGMENT, g);
                }
        } else {
            result = read_blob(&n, me, &which);
        }
        if (result == 1 && lost_by_restore(&n, which)) result = 2; /* the same as rot */
        const char *what = opening ? "opens the segments" : "reads the bytes";
        if (result == 0 || result == 2) {
            step(&n, me, opening && !result ? D_READ : leased ? D_CLOSE : DONE, what);
            break;
        }
        if (leased) {
            if (has_lease(&n, me))
                violation("reader with lease: %c%d is gone", kind_letter[KIND(which)], SLOT(which));
            step(&n, me, FAILED, what);
            break;
        }
        bool same = n.c.blob[B] == LIVE && n.a.u[me] == n.c.uses[B] && n.a.v[me] == snapshot(&n, false);
        if (same)
            violation("reader without lease: %c%d is gone and the catalog stands still", kind_letter[KIND(which)],
                      SLOT(which));
        n.a.v[me] = n.a.u[me] = 0;
        step(&n, me, D_RESOLVE, "finds a file gone: resolves again");
        break;
    }
    case D_CLOSE:
        lease_end(&n, me);
        step(&n, me, DONE, "lease.close");
        break;
    }
}

/* ---- those without a lease: one-time moves -------------------------------------------------------------------- */

enum { UNTAG_X, UNTAG_Y, TAG_X, PIN_B, UNPIN_B };

static void once(const State *s, int who, int move, const char *what) {
    State n = *s;
    if (bit(n.a.moves, move)) return;
    switch (move) {
    case UNTAG_X:
    case UNTAG_Y:
        if (!bit(n.c.tags, move)) return;
        n.c.tags &= (uint8_t)~(1 << move);
        break;
    case TAG_X: /* rule 3 */
        if (tagged(&n, X) || (rule[tag_live] ? n.c.blob[X] != LIVE : n.c.blob[X] == NONE)) return;
        n.c.tags |= 1;
        break;
    case PIN_B: /* anything may be pinned; only what is live is promised */
        n.c.pin[B] = (rule[pin_live] ? n.c.blob[B] == LIVE : n.c.blob[B] != NONE) ? PROMISE : WISH;
        break;
    case UNPIN_B:
        if (!n.c.pin[B]) return;
        n.c.pin[B] = UNPINNED;
        break;
    }
    n.a.moves |= (uint8_t)(1 << move);
    emit(&n, who * 32 + move, what);
}

/* One piece of one target goes bad, once; afterwards somebody finds it. */
static void decay(const State *s) {
    if (s->a.pc[DECAY] == 0)
        for (int o = 0; o < OBJECTS; o++) {
            if (!bit(decay_targets, o) || !on_disk(s, o)) continue;
            int pieces = KIND(o) == DATA ? CHUNKS : KIND(o) == META ? BLOBS : 1;
            for (int i = 0; i < pieces; i++) {
                unsigned held = KIND(o) == META ? s->d.holds[o] >> 2 * i & 3 : s->d.holds[o] >> i & 1;
                if (pieces > 1 && !held) continue;
                State n = *s;
                n.d.rot[o] = (uint8_t)(1 << i);
                step(&n, DECAY, 1, "something goes bad");
            }
        }
    for (int o = 0; o < OBJECTS && s->a.pc[DECAY] == 1; o++) {
        if (!s->d.rot[o] || bit(s->c.suspect, o) || (s->c.state[o] != LIVE && s->c.state[o] != RETIRED)) continue;
        State n = *s;
        n.c.suspect |= 1u << o;
        n.a.known |= 128;
        step(&n, DECAY, 1, "it is found: suspect");
    }
}

/* A sound object is called rotten (a bad cable, say). */
static void alarm_(State n) {
    for (int o = 0; o < OBJECTS && !n.a.pc[ALARM]; o++)
        if (bit(alarm_target, o) && (n.c.state[o] == LIVE || n.c.state[o] == RETIRED)) {
            n.c.suspect |= 1u << o;
            step(&n, ALARM, DONE, "a false alarm: suspect");
            return;
        }
}

/* A backup of the catalog alone is taken, and comes back later with everybody dead; then check runs. */
static void backup(State n) {
    switch (n.a.pc[BACKUP]) {
    case 0:
        n.backup = n.c;
        step(&n, BACKUP, 1, "backup of the catalog");
        break;
    case 1: {
        uint32_t keepers = needed_files(&n);
        n.c = n.backup;
        n.backup = (Catalog){0};
        n.c.mismatch = 1;
        for (int i = 1; i < ACTORS; i++) {
            n.a.v[i] = n.a.u[i] = 0;
            if (i == BACKUP) continue;
            n.a.pc[i] = i < SLOTS && job[i].late ? 0 : FAILED;
        }
        n.a.known = 0;
        n.a.keepers = keepers;
        n.a.restored = 1;
        step(&n, BACKUP, rule[check_before_epoch] ? 2 : 3, "all die; the backup is restored");
        break;
    }
    case 2:
        check_mark(&n);
        step(&n, BACKUP, 3, "check: marks what is missing, claims what is unknown");
        break;
    case 3:
        check_epoch(&n);
        step(&n, BACKUP, DONE, "check: the epoch is the store's again");
        break;
    }
}

void act(const State *s, int actor) {
    if (!present[actor] || s->a.pc[actor] >= DONE) return;
    if (actor < SLOTS) {
        if (job[actor].late && !s->a.restored) return;
        /* Upkeep waits for check. */
        if (s->c.mismatch && job[actor].role != WRITER && job[actor].role != READER) return;
    }
    switch (actor) {
    case CAT: reader(*s, actor); return;
    case TAGGER:
        once(s, actor, UNTAG_X, "untag X");
        once(s, actor, UNTAG_Y, "untag Y");
        once(s, actor, TAG_X, "tag X");
        return;
    case PINNER:
        once(s, actor, PIN_B, "pin B");
        once(s, actor, UNPIN_B, "unpin B");
        return;
    case DECAY: decay(s); return;
    case ALARM: alarm_(*s); return;
    case BACKUP: backup(*s); return;
    default: break;
    }
    switch (job[actor].role) {
    case WRITER: writer(*s, actor); break;
    case PACKER: packer(*s, actor); break;
    case REPACKER: repacker(*s, actor); break;
    case METAREPACKER: metarepacker(*s, actor); break;
    case MERGER:
    case REBUILDER: indexer(*s, actor); break;
    case READER: reader(*s, actor); break;
    case NOBODY: break;
    }
}
