/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Egress queues. A work request takes its place in the queue when it is started and
 * leaves, in that order, when it and all before it are committed. From there it waits
 * for the engine thread on the adapter's one list: the card keeps queues apart itself.
 *
 * Everything here may be called under any mutex of the TOE driver and never sleeps.
 */
#include "softc.h"

/* Work requests hold what the ring held before, as on hardware: never zeros. */
#define TS_WR_JUNK	0xdb

void
ts_wrq_init(struct ts_softc *ts, struct sge_wrq *wrq, u_int type, u_int idx,
    u_int chan)
{

	wrq->adapter = &ts->sc;
	TS_EQ_INIT(&wrq->eq, type);
	wrq->eq.cntxt_id = wrq->eq.abs_id =
	    type == EQ_CTRL ? idx : T5SIM_NPORTS + idx;
	wrq->eq.tx_chan = chan;
	STAILQ_INIT(&wrq->wr_list);
	mtx_init(&wrq->eq.eq_lock,
	    type == EQ_CTRL ? "t5sim ctrlq" : "t5sim ofld_txq", NULL, MTX_DEF);
}

void
ts_wrq_destroy(struct sge_wrq *wrq)
{
	struct wrqe *wr;

	while ((wr = STAILQ_FIRST(&wrq->wr_list)) != NULL) {
		STAILQ_REMOVE_HEAD(&wrq->wr_list, link);
		free_wrqe(wr);
	}
	mtx_destroy(&wrq->eq.eq_lock);
}

/* Its place among the control queues or among the offload queues. */
u_int
ts_wrq_index(struct sge_wrq *wrq)
{

	return (TS_EQ_IS_CTRL(&wrq->eq) ? wrq->eq.cntxt_id :
	    wrq->eq.cntxt_id - T5SIM_NPORTS);
}

/* Pass on the finished requests at the head of the queue. */
static void
ts_wrq_flush(struct ts_softc *ts, struct sge_wrq *wrq)
{
	struct wrqe *wr;
	bool any;

	mtx_assert(&wrq->eq.eq_lock, MA_OWNED);
	any = false;
	mtx_lock(&ts->pend_lock);
	while (ts->off != 0 && (wr = STAILQ_FIRST(&wrq->wr_list)) != NULL &&
	    wr->wr_len > 0) {
		STAILQ_REMOVE_HEAD(&wrq->wr_list, link);
		free_wrqe(wr);
		ts->n_wr_off++;
	}
	while ((wr = STAILQ_FIRST(&wrq->wr_list)) != NULL && wr->wr_len > 0) {
		STAILQ_REMOVE_HEAD(&wrq->wr_list, link);
		STAILQ_INSERT_TAIL(&ts->pend_wr, wr, link);
		any = true;
	}
	mtx_unlock(&ts->pend_lock);
	if (any)
		ts_engine_kick(ts);
}

/* Whether this start is one that a test wants to fail. */
static bool
ts_wr_shortage(struct ts_softc *ts)
{
	bool fail;

	mtx_lock(&ts->pend_lock);
	fail = ts->wr_fail_nth != 0 && ++ts->wr_starts >= ts->wr_fail_nth;
	if (fail) {
		ts->wr_starts = 0;
		ts->n_wr_fail++;
	}
	mtx_unlock(&ts->pend_lock);
	return (fail);
}

void *
start_wrq_wr(struct sge_wrq *wrq, int len16, struct wrq_cookie *cookie)
{
	struct ts_softc *ts;
	struct wrqe *wr;

	ts = ts_of(wrq->adapter);
	if (len16 <= 0 || len16 * 16 > SGE_MAX_WR_LEN || ts_is_off(ts) ||
	    ts_wr_shortage(ts))
		return (NULL);
	wr = alloc_wrqe(len16 * 16, wrq);
	if (wr == NULL)
		return (NULL);
	memset(wr->wr, TS_WR_JUNK, wr->wr_len);
	wr->wr_len = -wr->wr_len;
	TXQ_LOCK(wrq);
	STAILQ_INSERT_TAIL(&wrq->wr_list, wr, link);
	TXQ_UNLOCK(wrq);
	return (wr->wr);
}

void
commit_wrq_wr(struct sge_wrq *wrq, void *w, struct wrq_cookie *cookie)
{
	struct wrqe *wr;

	/* The bytes lead to the request: nothing needs the cookie. */
	wr = (struct wrqe *)(void *)((char *)w - offsetof(struct wrqe, wr));
	TXQ_LOCK(wrq);
	KASSERT(wr->wrq == wrq && wr->wr_len < 0,
	    ("%s: not a request that was started on this queue", __func__));
	wr->wr_len = -wr->wr_len;
	wrq->tx_wrs_direct++;
	ts_wrq_flush(ts_of(wrq->adapter), wrq);
	TXQ_UNLOCK(wrq);
}

void
t4_wrq_tx_locked(struct adapter *sc, struct sge_wrq *wrq, struct wrqe *wr)
{

	mtx_assert(&wrq->eq.eq_lock, MA_OWNED);
	STAILQ_INSERT_TAIL(&wrq->wr_list, wr, link);
	wrq->tx_wrs_copied++;
	ts_wrq_flush(ts_of(sc), wrq);
}
