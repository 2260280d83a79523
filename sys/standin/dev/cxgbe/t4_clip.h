/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/t4_clip.h, as of 12.1, 14.2 and 15.0: the local IPv6 addresses the
 * adapter compresses in its lookups.
 */
#ifndef __T4_CLIP_H
#define __T4_CLIP_H

#include <sys/queue.h>
#include <netinet/in.h>

struct adapter;

#if __FreeBSD_version >= 1402000
/*
 * The entry of the address, with a reference; with `add` it is made if there is none. NULL if
 * there is none. Never sleep.
 */
struct clip_entry *t4_get_clip_entry(struct adapter *, struct in6_addr *,
    bool);
/* One reference more, one less. */
void t4_hold_clip_entry(struct adapter *, struct clip_entry *);
void t4_release_clip_entry(struct adapter *, struct clip_entry *);
int t4_release_clip_addr(struct adapter *, struct in6_addr *);
#else
struct clip_entry {
	TAILQ_ENTRY(clip_entry) link;
	struct in6_addr lip;
	u_int refcount;
};

/*
 * A reference to the address's entry: another one to `ce`, or, if that is NULL, to the
 * entry that is looked up. NULL if the address has none. Never sleep.
 */
struct clip_entry *t4_hold_lip(struct adapter *, struct in6_addr *,
    struct clip_entry *);
void t4_release_lip(struct adapter *, struct clip_entry *);
#endif

#endif
