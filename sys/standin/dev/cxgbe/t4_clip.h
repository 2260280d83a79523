/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/t4_clip.h, as of 12.1: the local IPv6 addresses the
 * adapter compresses in its lookups.
 */
#ifndef __T4_CLIP_H
#define __T4_CLIP_H

#include <sys/queue.h>
#include <netinet/in.h>

struct adapter;

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
