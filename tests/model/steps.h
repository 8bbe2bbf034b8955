/* What the processes have in common. A process is a program counter and two words of memory, v and u; each step is one
   transaction or one act on files, after which anything else may happen. A crash is a process that is never scheduled
   again. */
#ifndef STEPS_H
#define STEPS_H

#include "model.h"

/* In u: two bits a slot, the uses of all data packs; from bit 16 on, the kinds of objects that were begun. */
enum { USES = 0x3ff };
static inline unsigned began(int kind) { return 1u << (16 + kind); }

/* Goes on to `next`; what is remembered ends with the process. */
void step(State *n, int me, int next, const char *what);
/* Can the whole object be read? */
bool reads_whole(const State *s, int object);
/* May its file be missing because an older catalog came back? */
bool lost_by_restore(const State *s, int object);
/* The blob's record in a metadata pack: a layer's chunks, a manifest 1; 0 where it cannot be read. */
unsigned record(const State *s, int object, int blob);
/* put.begin of one object. */
void begin(State *n, int me, int kind, unsigned holds);
bool made(const State *s, int me, int kind);
/* The index hits that a commit leans on: all must still be seen; retired ones come back. */
bool packs_seen(State *n, int me, unsigned uses);
/* What a successful commit says is there must be there: known rot and lost files are no excuse. */
void granted(const State *n, int blob);

void writer(State n, int me);
void packer(State n, int me);
void repacker(State n, int me);
void metarepacker(State n, int me);
void indexer(State n, int me);

#endif
