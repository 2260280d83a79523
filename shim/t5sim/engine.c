/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The engine: a thread that feeds pending work requests to the card, lets the card run
 * up to now, and then, with no lock held, delivers CPLs and frames. A callout starts it
 * again when the card's next event is due.
 */
#include "softc.h"

#include <sys/endian.h>
#include <sys/priority.h>
#include <sys/time.h>
#include <machine/atomic.h>

#define NS_PER_S	1000000000ULL

static uint64_t
ts_sbt_to_ns(sbintime_t t)
{

	return ((uint64_t)(t >> 32) * NS_PER_S +
	    ((uint64_t)(uint32_t)t * NS_PER_S >> 32));
}

/* Rounded up, so that ts_sbt_to_ns of the result is no less than ns. */
static sbintime_t
ts_ns_to_sbt(uint64_t ns)
{

	return ((sbintime_t)((ns / NS_PER_S) << 32 |
	    ((ns % NS_PER_S) << 32) / NS_PER_S) + 1);
}

uint64_t
ts_now(void)
{

	return (ts_sbt_to_ns(sbinuptime()));
}

/* Any context but a spin lock's. */
void
ts_engine_kick(struct ts_softc *ts)
{

	taskqueue_enqueue(ts->tq, &ts->run);
}

static void
ts_engine_tick(void *arg)
{

	ts_engine_kick(arg);
}

/* CPL_PASS_OPEN_REQ6 in its work request, and the answer to it. */
#define TS_OPEN6_CPL		16	/* the CPL comes behind so many bytes */
#define TS_OPEN6_LEN		72	/* bytes of the work request */
#define TS_OPEN6_OPT1		(TS_OPEN6_CPL + 48)
#define TS_SYN_RSS_QUEUE(opt1)	((opt1) >> 2 & 0x3ff)
#define TS_OPEN_RPL_LEN		8
#define TS_ERR_TCAM_FULL	3

/*
 * The card knows no IPv6 and refused the request. A driver that offloads every listener
 * waits for the answer to this one before it lets go of it: there is no room.
 */
static void
ts_refuse_open6(const struct wrqe *wr, struct ts_sink *cpls)
{
	const char *w = wr->wr;
	uint8_t rpl[TS_OPEN_RPL_LEN];
	uint32_t ot;

	if (wr->wr_len < TS_OPEN6_LEN)
		return;
	ot = be32dec(w + TS_OPEN6_CPL);
	if (G_CPL_OPCODE(ot) != CPL_PASS_OPEN_REQ6)
		return;
	memset(rpl, 0, sizeof(rpl));
	be32enc(rpl, MK_OPCODE_TID(CPL_PASS_OPEN_RPL, G_TID(ot)));
	rpl[sizeof(rpl) - 1] = TS_ERR_TCAM_FULL;
	ts_cpl(cpls, TS_SYN_RSS_QUEUE(be64dec(w + TS_OPEN6_OPT1)), rpl,
	    sizeof(rpl), NULL, 0);
}

static void
ts_submit(struct ts_softc *ts, struct ts_wr_list *wrs, struct ts_sink *cpls)
{
	struct sge_wrq *wrq;
	struct wrqe *wr;
	int rc;

	while ((wr = STAILQ_FIRST(wrs)) != NULL) {
		STAILQ_REMOVE_HEAD(wrs, link);
		wrq = wr->wrq;
		/* A refused request is counted by the card. */
		rc = t5sim_card_submit(ts->card, ts_now(),
		    TS_EQ_IS_CTRL(&wrq->eq) ? T5SIM_Q_CTRL :
		    T5SIM_Q_OFLD, ts_wrq_index(wrq),
		    (const uint8_t *)wr->wr, wr->wr_len);
		if (rc != 0)
			ts_refuse_open6(wr, cpls);
		free_wrqe(wr);
	}
}

static void
ts_engine_run(void *arg, int pending)
{
	struct ts_softc *ts = arg;
	struct ts_wr_list wrs;
	struct mbufq frames;
	struct ts_sink cpls;
	struct mbuf *m;
	uint64_t next, now;

	STAILQ_INIT(&wrs);
	STAILQ_INIT(&cpls);
	mbufq_init(&frames, INT_MAX);

	if (ts_is_off(ts))
		return;
	ts_tid_release_deferred(ts);
	sx_xlock(&ts->card_lock);
	mtx_lock(&ts->pend_lock);
	STAILQ_CONCAT(&wrs, &ts->pend_wr);
	mbufq_concat(&frames, &ts->pend_frames);
	mtx_unlock(&ts->pend_lock);
	ts_submit(ts, &wrs, &cpls);
	now = ts_now();
	t5sim_card_advance(ts->card, now, &cpls);
	next = t5sim_card_next(ts->card);
	sx_xunlock(&ts->card_lock);

	ts_cpl_deliver(ts, &cpls);
	while ((m = mbufq_dequeue(&frames)) != NULL)
		ts_frame_input(ts, m);

	if (next == T5SIM_NEVER || atomic_load_acq_int(&ts->stopping) != 0)
		return;
	if (next <= ts_now())
		ts_engine_kick(ts);
	else
		callout_reset_sbt(&ts->tick, ts_ns_to_sbt(next), 0,
		    ts_engine_tick, ts, C_ABSOLUTE);
}

void
ts_engine_start(struct ts_softc *ts)
{

	TASK_INIT(&ts->run, 0, ts_engine_run, ts);
	callout_init(&ts->tick, 1);
	ts->tq = taskqueue_create("t5sim", M_WAITOK, taskqueue_thread_enqueue,
	    &ts->tq);
	(void)taskqueue_start_threads(&ts->tq, 1, PI_NET, "t5sim");
}

/* What waits for the engine will never reach the card. */
static void
ts_engine_forget(struct ts_softc *ts)
{
	struct ts_wr_list wrs;
	struct mbufq frames;
	struct wrqe *wr;

	STAILQ_INIT(&wrs);
	mbufq_init(&frames, INT_MAX);
	mtx_lock(&ts->pend_lock);
	STAILQ_CONCAT(&wrs, &ts->pend_wr);
	mbufq_concat(&frames, &ts->pend_frames);
	memset(ts->tid_release, 0, howmany(ts->sc.tids.ntids, NBBY));
	ts->n_tid_release = 0;
	mtx_unlock(&ts->pend_lock);
	while ((wr = STAILQ_FIRST(&wrs)) != NULL) {
		STAILQ_REMOVE_HEAD(&wrs, link);
		free_wrqe(wr);
	}
	mbufq_drain(&frames);
}

/* The adapter is marked as off: no CPL is delivered from here on. */
void
ts_engine_pause(struct ts_softc *ts)
{

	taskqueue_drain(ts->tq, &ts->run);
	ts_engine_forget(ts);
}

/*
 * No interface is left that could send, no driver that could queue. What the card still
 * has to do is dropped with it.
 */
void
ts_engine_stop(struct ts_softc *ts)
{

	/*
	 * From here on no run sets the callout again. The last tick may still start a
	 * run, which taskqueue_free finishes.
	 */
	atomic_store_rel_int(&ts->stopping, 1);
	taskqueue_drain(ts->tq, &ts->run);
	callout_drain(&ts->tick);
	taskqueue_free(ts->tq);
	ts_engine_forget(ts);
}
