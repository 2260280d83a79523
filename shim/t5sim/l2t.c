/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The L2 table: free entries, and writing one to the adapter. See t4_l2t.h for the locks.
 */
#include "softc.h"

#define FW_TP_WR	0x05
#define L2T_WRITE_LEN	32	/* bytes of the work request */

int
t4_init_l2t(struct adapter *sc, int flags)
{
	struct l2t_data *d;
	struct l2t_entry *e;
	u_int i, n;

	n = sc->vres.l2t.size;
	if (n < 2)
		return (EINVAL);
	d = malloc(sizeof(*d) + n * sizeof(d->l2tab[0]), M_CXGBE,
	    M_ZERO | flags);
	if (d == NULL)
		return (ENOMEM);
	d->l2t_size = n;
	d->nfree = n;
	d->rover = d->l2tab;
	rw_init(&d->lock, "t5sim L2T");
	for (i = 0; i < n; i++) {
		e = &d->l2tab[i];
		e->idx = i;
		e->state = L2T_STATE_UNUSED;
		STAILQ_INIT(&e->wr_list);
		mtx_init(&e->lock, "t5sim L2T entry", NULL, MTX_DEF);
	}
	sc->l2t = d;
	return (0);
}

#ifdef TS_L2T_BY_ADAPTER
int
t4_free_l2t(struct adapter *sc)
{
	struct l2t_data *d = sc->l2t;
#else
int
t4_free_l2t(struct l2t_data *d)
{
#endif
	u_int i;

	for (i = 0; i < d->l2t_size; i++) {
		if (d->l2tab[i].refcnt != 0)
			printf("t5sim: L2T entry %u still has %d references\n",
			    i, d->l2tab[i].refcnt);
		mtx_destroy(&d->l2tab[i].lock);
	}
	rw_destroy(&d->lock);
	free(d, M_CXGBE);
	return (0);
}

/* Out of its hash chain. */
static void
ts_l2e_unhash(struct l2t_data *d, struct l2t_entry *e)
{
	struct l2t_entry **link;

	if (e->state >= L2T_STATE_SWITCHING)
		return;
	link = &d->l2tab[e->hash].first;
	while (*link != NULL && *link != e)
		link = &(*link)->next;
	if (*link == e)
		*link = e->next;
	e->next = NULL;
}

struct l2t_entry *
t4_alloc_l2e(struct l2t_data *d)
{
	struct l2t_entry *e;
	u_int i, start;

	rw_assert(&d->lock, RA_WLOCKED);
	start = d->rover - d->l2tab;
	for (i = 0; i < d->l2t_size; i++) {
		e = &d->l2tab[(start + i) % d->l2t_size];
		if (atomic_load_acq_int((volatile u_int *)&e->refcnt) != 0)
			continue;
		d->rover = &d->l2tab[(e->idx + 1) % d->l2t_size];
		atomic_subtract_int((volatile u_int *)&d->nfree, 1);
		ts_l2e_unhash(d, e);
		e->state = L2T_STATE_UNUSED;
		return (e);
	}
	return (NULL);
}

int
t4_write_l2e(struct l2t_entry *e, int sync)
{
	struct wrq_cookie cookie;
	struct adapter *sc;
	uint8_t *cpl;
	uint32_t *w;
	u_int idx;

	mtx_assert(&e->lock, MA_OWNED);
	w = start_wrq_wr(e->wrq, L2T_WRITE_LEN / 16, &cookie);
	if (w == NULL)
		return (ENOMEM);
	sc = e->wrq->adapter;
	idx = sc->vres.l2t.start + e->idx;
	sync = sync != 0;
	w[0] = htobe32((uint32_t)FW_TP_WR << 24 | 16);
	w[1] = htobe32(L2T_WRITE_LEN / 16);
	w[2] = w[3] = 0;
	w[4] = htobe32(MK_OPCODE_TID(CPL_L2T_WRITE_REQ,
	    idx | V_SYNC_WR(sync) | V_TID_QID(e->iqid)));
	w[5] = htobe32((V_L2T_W_PORT(TS_HW_PORT(e)) | V_L2T_W_NOREPLY(!sync)) << 16 |
	    idx);
	cpl = (uint8_t *)&w[6];
	cpl[0] = e->vlan >> 8;
	cpl[1] = e->vlan;
	memcpy(cpl + 2, e->dmac, ETHER_ADDR_LEN);
	commit_wrq_wr(e->wrq, w, &cookie);
	if (sync && e->state != L2T_STATE_SWITCHING)
		e->state = L2T_STATE_SYNC_WRITE;
	return (0);
}
