/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands for FreeBSD's dev/cxgbe/t4_l2t.h, as of 12.1, 14.2 and 15.0: the table of next hops. The base
 * driver owns entries and writes them to the adapter; hashing, resolution and the queue
 * of work requests that wait for it (t4_l2t_get, t4_l2t_send) are the TOE driver's.
 */
#ifndef __T4_L2T_H
#define __T4_L2T_H

#include <sys/param.h>
#include <sys/lock.h>
#include <sys/mutex.h>
#include <sys/rwlock.h>
#include <machine/atomic.h>

#include "adapter.h"

/* Marks a CPL_L2T_WRITE_REQ whose reply the TOE driver waits for. */
#define S_SYNC_WR	12
#define V_SYNC_WR(x)	((x) << S_SYNC_WR)
#define F_SYNC_WR	V_SYNC_WR(1)

#if __FreeBSD_version < 1402000
enum { L2T_SIZE = 4096 };
#endif

enum {
	L2T_STATE_VALID,	/* usable */
	L2T_STATE_STALE,	/* usable, due to be resolved again */
	L2T_STATE_RESOLVING,
	L2T_STATE_FAILED,
	L2T_STATE_SYNC_WRITE,	/* written, the reply is outstanding */
	/* the states from here on are not hashed */
	L2T_STATE_SWITCHING,
#if __FreeBSD_version >= 1402000
	L2T_STATE_TLS,
#endif
	L2T_STATE_UNUSED
};

/*
 * The table is an array; `first` of the entry with index i is the head of hash chain i,
 * `next` links the chain. An entry with refcnt 0 may still be hashed, and be found again.
 * Chains and allocation are under l2t_data.lock, the rest of an entry under its own lock,
 * which comes second. refcnt is atomic; it rises from 0 under l2t_data.lock only.
 */
struct l2t_entry {
	uint16_t state;
	uint16_t idx;
	uint32_t addr[4];	/* next hop, network order */
	uint32_t iqid;		/* where the reply to a write goes */
	struct sge_wrq *wrq;	/* where a write goes */
	struct ifnet *ifp;
#if __FreeBSD_version < 1500000
	uint16_t smt_idx;
#endif
	uint16_t vlan;
	struct l2t_entry *first;
	struct l2t_entry *next;
	STAILQ_HEAD(, wrqe) wr_list; /* waiting for resolution */
	struct mtx lock;
	volatile int refcnt;
	uint16_t hash;
	uint8_t ipv6;
#if __FreeBSD_version >= 1500000
	uint8_t hw_port;
#else
	uint8_t lport;
#endif
	uint8_t dmac[ETHER_ADDR_LEN];
};

struct l2t_data {
	struct rwlock lock;
	u_int l2t_size;
	volatile int nfree;
	struct l2t_entry *rover;
	struct l2t_entry l2tab[];
};

/* ENOMEM or 0. */
int t4_init_l2t(struct adapter *, int);
#if __FreeBSD_version >= 1402000
int t4_free_l2t(struct adapter *);
#else
int t4_free_l2t(struct l2t_data *);
#endif
/*
 * An unhashed entry with refcnt 0, NULL if all are in use. The caller holds the table's
 * write lock, and must set refcnt before it lets go.
 */
struct l2t_entry *t4_alloc_l2e(struct l2t_data *);
/*
 * Send the entry to the adapter; with sync its state becomes SYNC_WRITE until
 * CPL_L2T_WRITE_RPL, which goes to the handler with CPL_COOKIE_TOM. The caller holds the
 * entry's lock. ENOMEM: nothing was sent.
 */
int t4_write_l2e(struct l2t_entry *, int);

static inline void
t4_l2t_release(struct l2t_entry *e)
{
	struct l2t_data *d;

	d = __containerof(e, struct l2t_data, l2tab[e->idx]);
	if (atomic_fetchadd_int((volatile u_int *)&e->refcnt, -1) == 1)
		atomic_add_int((volatile u_int *)&d->nfree, 1);
}

#endif
