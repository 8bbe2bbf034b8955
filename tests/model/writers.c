/* Who brings bytes, and who turns loose ones into packed ones. */
#include "steps.h"

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
    unsigned own = n->a.v[me] >> 2 & 3, uses = n->a.u[me] & USES;
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

void writer(State n, int me) {
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

void packer(State n, int me) {
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
        unsigned uses = (n.a.u[me] & USES) | entries(me, own);
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
        if (!packs_seen(&n, me, n.a.u[me] & USES)) {
            step(&before, me, FAILED, "commit fails");
            break;
        }
        if (own) {
            make_live(&n, OBJECT(DATA, me));
            make_live(&n, OBJECT(SEGMENT, me));
        }
        make_live(&n, OBJECT(META, me));
        n.c.place[b] = (uint8_t)(OBJECT(META, me) + 1);
        n.c.uses[b] = (uint16_t)((n.a.u[me] & USES) | entries(me, own));
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
