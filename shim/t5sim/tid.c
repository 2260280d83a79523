/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Identifiers of connections that are being opened (atids), and the return of a tid the
 * driver does not want.
 */
#include "softc.h"

#define FW_TP_WR	0x05
#define TID_RELEASE_LEN	32	/* bytes of the work request */

/* The table is made with the adapter, or before 14 by the TOE driver when it is activated. */
#ifdef TS_BASE_HAS_ATIDS
static
#endif
int
alloc_atid_tab(struct tid_info *t, int flags)
{
	u_int i;

	t->atid_tab = malloc(t->natids * sizeof(*t->atid_tab), M_CXGBE,
	    M_ZERO | flags);
	if (t->atid_tab == NULL)
		return (ENOMEM);
	mtx_init(&t->atid_lock, "t5sim atids", NULL, MTX_DEF);
	t->atids_in_use = 0;
	t->afree = NULL;
	for (i = t->natids; i-- > 0;) {
		t->atid_tab[i].next = t->afree;
		t->afree = &t->atid_tab[i];
	}
	return (0);
}

#ifdef TS_BASE_HAS_ATIDS
static
#endif
void
free_atid_tab(struct tid_info *t)
{

	if (t->atid_tab == NULL)
		return;
	if (t->atids_in_use != 0)
		printf("t5sim: %u atids were never freed\n", t->atids_in_use);
	mtx_destroy(&t->atid_lock);
	free(t->atid_tab, M_CXGBE);
	t->atid_tab = NULL;
}

/* Sleeps. */
int
ts_atids_init(struct ts_softc *ts)
{
#ifdef TS_BASE_HAS_ATIDS

	return (alloc_atid_tab(&ts->sc.tids, M_WAITOK));
#else

	return (0);
#endif
}

void
ts_atids_fini(struct ts_softc *ts)
{
#ifdef TS_BASE_HAS_ATIDS

	free_atid_tab(&ts->sc.tids);
#endif
}

int
alloc_atid(struct adapter *sc, void *ctx)
{
	struct tid_info *t = &sc->tids;
	union aopen_entry *e;
	int atid;

	atid = -1;
	mtx_lock(&t->atid_lock);
	e = ts_is_off(ts_of(sc)) ? NULL : t->afree;
	if (e != NULL) {
		t->afree = e->next;
		e->data = ctx;
		t->atids_in_use++;
		atid = e - t->atid_tab;
	}
	mtx_unlock(&t->atid_lock);
	return (atid);
}

void *
lookup_atid(struct adapter *sc, int atid)
{
	struct tid_info *t = &sc->tids;

	if (atid < 0 || (u_int)atid >= t->natids)
		return (NULL);
	return (t->atid_tab[atid].data);
}

void
free_atid(struct adapter *sc, int atid)
{
	struct tid_info *t = &sc->tids;
	union aopen_entry *e;

	if (atid < 0 || (u_int)atid >= t->natids)
		return;
	e = &t->atid_tab[atid];
	mtx_lock(&t->atid_lock);
	e->next = t->afree;
	t->afree = e;
	t->atids_in_use--;
	mtx_unlock(&t->atid_lock);
}

/* The CPL in its FW_TP_WR. */
static void
ts_tid_release_wr(struct wrqe *wr, u_int tid)
{
	uint32_t *w;

	w = wrtod(wr);
	w[0] = htobe32((uint32_t)FW_TP_WR << 24 | 8);
	w[1] = htobe32((uint32_t)tid << 8 | TID_RELEASE_LEN / 16);
	w[2] = w[3] = 0;
	w[4] = htobe32(MK_OPCODE_TID(CPL_TID_RELEASE, tid));
	w[5] = w[6] = w[7] = 0;
}

/* With no memory now, the engine does it. */
void
release_tid(struct adapter *sc, int tid, struct sge_wrq *ctrlq)
{
	struct ts_softc *ts = ts_of(sc);
	struct wrqe *wr;

	if (tid < 0 || (u_int)tid >= sc->tids.ntids)
		return;
	wr = alloc_wrqe(TID_RELEASE_LEN, ctrlq);
	if (wr == NULL) {
		mtx_lock(&ts->pend_lock);
		setbit(ts->tid_release, tid);
		ts->n_tid_release++;
		mtx_unlock(&ts->pend_lock);
		ts_engine_kick(ts);
		return;
	}
	ts_tid_release_wr(wr, tid);
	t4_wrq_tx(sc, wr);
}

/* Engine thread; may sleep. */
void
ts_tid_release_deferred(struct ts_softc *ts)
{
	struct wrqe *wr;
	u_int tid;

	for (tid = 0; ts->n_tid_release != 0 && tid < ts->sc.tids.ntids; tid++) {
		if (isclr(ts->tid_release, tid))
			continue;
		wr = malloc(offsetof(struct wrqe, wr) + TID_RELEASE_LEN,
		    M_CXGBE, M_WAITOK);
		wr->wrq = &ts->ctrlq[0];
		wr->wr_len = TID_RELEASE_LEN;
		ts_tid_release_wr(wr, tid);
		mtx_lock(&ts->pend_lock);
		clrbit(ts->tid_release, tid);
		ts->n_tid_release--;
		mtx_unlock(&ts->pend_lock);
		t4_wrq_tx(&ts->sc, wr);
	}
}
