/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The upper-layer driver side of cxgbe: activation on an adapter, CPL dispatch,
 * work requests, tunables.
 */
#include "internal.h"

#include <sys/epoch.h>
#include <sys/syslog.h>
#include <dev/cxgbe/common/t4_regs.h>
#include <dev/cxgbe/common/t4_msg.h>

int
th_wr_start(struct th_tom *tom, uint32_t q, uint32_t idx, uint32_t len16,
    struct th_wr *wr)
{
	struct sge_wrq *wrq;
	void *w;

	CTASSERT(sizeof(wr->cookie) >= sizeof(struct wrq_cookie));
	wrq = q == TH_Q_CTRL ? &tom->sc->sge.ctrlq[idx] :
	    TH_OFLD_TXQ(tom->sc, idx);
	w = start_wrq_wr(wrq, len16, (struct wrq_cookie *)wr->cookie);
	if (w == NULL)
		return (ENOMEM);
	wr->wr = w;
	wr->wrq = wrq;
	return (0);
}

void
th_wr_commit(struct th_wr *wr)
{

	commit_wrq_wr(wr->wrq, wr->wr, (struct wrq_cookie *)wr->cookie);
}

void
th_tunables(struct th_tom *tom, struct th_tunables *t)
{
	struct tom_tunables *tt;

	tt = &tom->sc->tt;
	t->cong_algorithm = tt->cong_algorithm;
	t->sndbuf = tt->sndbuf;
	t->ddp = tt->ddp;
	t->rx_coalesce = tt->rx_coalesce;
	t->tx_zcopy = tt->tx_zcopy;
	t->cop_managed = tt->cop_managed_offloading;
	t->ddp_cache = tom->ddp_cache;
	t->answer_timeout = MAX(tom->answer_timeout, 1);
	t->tx_zcopy_min = tom->tx_zcopy_min;
}

void
th_log(struct th_tom *tom, const char *msg, size_t len, uint64_t a,
    uint64_t b)
{
	static struct timeval last;
	static int pps;

	if (ppsratecheck(&last, &pps, 10))
		log(LOG_WARNING, "%s: toehold: %.*s (%ju, %ju)\n",
		    TH_NAMEUNIT(tom->sc), (int)len, msg, (uintmax_t)a,
		    (uintmax_t)b);
}

/* ---- CPLs ------------------------------------------------------------- */

static int
th_cpl(struct sge_iq *iq, const struct rss_header *rss, struct mbuf *m)
{
	struct epoch_tracker et;
	struct th_tom *tom;
	const uint8_t *cpl;
	size_t len;

	if (m != NULL) {
		cpl = mtod(m, const uint8_t *);
		len = m->m_len;
	} else {
		/* In the queue entry: what the RSS header and trailer leave. */
		cpl = (const uint8_t *)(rss + 1);
		len = 64 - sizeof(*rss) - 16;
	}
	TH_EPOCH_ENTER(et);
	tom = iq->adapter->tom_softc;
	if (tom != NULL)
		toehold_cpl(tom->rs, cpl, len, m);
	else
		m_freem(m);		/* came after the last connection */
	TH_EPOCH_EXIT(et);
	return (0);
}

static const uint8_t th_opcodes[] = {
	CPL_ACT_ESTABLISH, CPL_PASS_OPEN_RPL, CPL_CLOSE_LISTSRV_RPL,
	CPL_PASS_ACCEPT_REQ, CPL_PASS_ESTABLISH, CPL_PEER_CLOSE,
	CPL_CLOSE_CON_RPL, CPL_ABORT_REQ_RSS, CPL_RX_DATA, CPL_RX_DATA_DDP,
	CPL_RX_DDP_COMPLETE,
};

/* Opcodes whose replies are told apart by a cookie. */
static const struct {
	uint8_t opcode;
	uint8_t cookie;
} th_shared[] = {
	{ CPL_ACT_OPEN_RPL, CPL_COOKIE_TOM },
	{ CPL_SET_TCB_RPL, CPL_COOKIE_DDP0 },
	{ CPL_SET_TCB_RPL, CPL_COOKIE_DDP1 },
	{ CPL_L2T_WRITE_RPL, CPL_COOKIE_TOM },
	{ CPL_FW4_ACK, CPL_COOKIE_TOM },
	{ CPL_ABORT_RPL_RSS, CPL_COOKIE_TOM },
};

static void
th_cpl_handlers(cpl_handler_t h)
{
	u_int i;

	for (i = 0; i < nitems(th_opcodes); i++)
		t4_register_cpl_handler(th_opcodes[i], h);
	for (i = 0; i < nitems(th_shared); i++)
		t4_register_shared_cpl_handler(th_shared[i].opcode, h,
		    th_shared[i].cookie);
}

/* ---- Retry of what met a shortage -------------------------------------- */

static void
th_retry_timeout(void *arg)
{
	struct th_tom *tom;

	tom = arg;
	taskqueue_enqueue(taskqueue_thread, &tom->retry_task);
}

static void
th_retry_task(void *arg, int pending)
{
	struct epoch_tracker et;
	struct th_tom *tom;

	tom = arg;
	/* Connections may be dropped. */
	TH_EPOCH_ENTER(et);
	toehold_retry(tom->rs);
	TH_EPOCH_EXIT(et);
}

uint64_t
th_uptime_ms(void)
{

	return (sbinuptime() / SBT_1MS);
}

/* The lock is for two that ask at once: the later time must not be the last. */
void
th_retry_schedule(struct th_tom *tom, uint32_t ms)
{
	sbintime_t at;

	at = sbinuptime() + SBT_1MS * ms;
	mtx_lock(&tom->retry_lock);
	if (!callout_pending(&tom->retry_callout) || at < tom->retry_at) {
		tom->retry_at = at;
		callout_reset_sbt(&tom->retry_callout, SBT_1MS * ms, 0,
		    th_retry_timeout, tom, 0);
	}
	mtx_unlock(&tom->retry_lock);
}

/* ---- Memory is short ---------------------------------------------------- */

/* From the page daemon and the like: nothing is taken apart here. */
static void
th_lowmem(void *arg, int flags)
{
	struct th_tom *tom;

	tom = arg;
	toehold_lowmem(tom->rs);
	taskqueue_enqueue(taskqueue_thread, &tom->retry_task);
}

/* ---- Activation ---------------------------------------------------------- */

int
th_adapter_info(struct adapter *sc, struct th_adapter_info *ai)
{
	uint32_t psz;
	int i;

	memset(ai, 0, sizeof(*ai));
	ai->chip = chip_id(sc) >= CHELSIO_T6 ? TH_CHIP_T6 :
	    chip_id(sc) == CHELSIO_T5 ? TH_CHIP_T5 : TH_CHIP_T4;
	ai->nports = sc->params.nports;
	ai->tid_base = sc->tids.tid_base;
	ai->ntids = sc->tids.ntids;
	ai->nstids = sc->tids.nstids;
	ai->stid_base = sc->tids.stid_base;
	ai->natids = sc->tids.natids;
	ai->wr_credits = sc->params.ofldq_wr_cred;
	ai->ddp_start = sc->vres.ddp.start;
	ai->ddp_size = sc->vres.ddp.size;
	ai->pf = sc->pf;
	ai->vlan_shift = sc->params.tp.vlan_shift;
	ai->port_shift = sc->params.tp.port_shift;
	ai->protocol_shift = sc->params.tp.protocol_shift;
	/* Only if the field is a function's number, not an outer VLAN's. */
	ai->vnic_shift = TH_VNIC_IS_PF_VF(&sc->params.tp) ?
	    sc->params.tp.vnic_shift : -1;
	for (i = 0; i < TH_NMTUS; i++)
		ai->mtus[i] = sc->params.mtus[i];

	psz = t4_read_reg(sc, A_ULP_RX_TDDP_PSZ);
	ai->page_shift[0] = 12 + G_HPZ0(psz);
	ai->page_shift[1] = 12 + G_HPZ1(psz);
	ai->page_shift[2] = 12 + G_HPZ2(psz);
	ai->page_shift[3] = 12 + G_HPZ3(psz);
	for (i = 1; i < 4; i++)
		if (ai->page_shift[i] <= ai->page_shift[i - 1])
			return (ENXIO);
	return (0);
}

/*
 * The tag mask tells the adapter which bits of a DDP tag are an offset in its
 * page-pod region: as many as the region's size has.
 */
void
th_set_tagmask(struct adapter *sc, uint32_t size)
{

	t4_set_reg_field(sc, A_ULP_RX_TDDP_TAGMASK, V_TDDPTAGMASK(M_TDDPTAGMASK),
	    V_TDDPTAGMASK(((1u << fls(size)) - 1) >> 6));
}

/* The atid table, where the base driver does not make it for everybody. */
static int
th_atids_init(struct th_tom *tom)
{
#ifndef TH_BASE_HAS_ATIDS
	int error;

	/* Hash filters may have made it already, and then it stays theirs. */
	if (tom->sc->tids.atid_tab == NULL) {
		error = alloc_atid_tab(&tom->sc->tids, M_WAITOK);
		if (error != 0)
			return (error);
		tom->own_atids = true;
	}
#endif
	return (0);
}

static void
th_atids_fini(struct th_tom *tom)
{
#ifndef TH_BASE_HAS_ATIDS

	if (tom->own_atids)
		free_atid_tab(&tom->sc->tids);
#endif
}

static int
th_activate(struct adapter *sc)
{
	struct th_adapter_info ai;
	struct vi_info *vi;
	struct th_tom *tom;
	int error, i, v;

	error = th_adapter_info(sc, &ai);
	if (error != 0)
		return (error);

	tom = malloc(sizeof(*tom), M_TOEHOLD, M_WAITOK | M_ZERO);
	tom->sc = sc;
	tom->ddp_cache = TH_MAX_SETS;
	tom->answer_timeout = TH_ANSWER_TIMEOUT;
	tom->tx_zcopy_min = TH_TX_ZCOPY_MIN;
	tom->max_wired = physmem / 4;
	th_stats_alloc(tom);
	mtx_init(&tom->retry_lock, "toehold retry", NULL, MTX_DEF);
	callout_init(&tom->retry_callout, 1);
	TASK_INIT(&tom->retry_task, 0, th_retry_task, tom);
	th_l2_init(tom);
	th_vm_init(tom);
	error = th_atids_init(tom);
	if (error != 0)
		goto fail;
	error = toehold_activate(tom, &ai, &tom->rs);
	if (error != 0)
		goto fail;
	th_set_tagmask(sc, ai.ddp_size);
	th_sysctls(tom);
	th_toedev_init(tom);
	sc->tom_softc = tom;
	for_each_port(sc, i)
		for_each_vi(sc->port[i], v, vi)
			SETTOEDEV(vi->ifp, &tom->tod);
	register_toedev(&tom->tod);
	tom->lowmem = EVENTHANDLER_REGISTER(vm_lowmem, th_lowmem, tom,
	    EVENTHANDLER_PRI_ANY);
	th_vm_watch(tom);
	return (0);
fail:
	th_atids_fini(tom);
	th_vm_fini(tom);
	th_l2_fini(tom);
	th_stats_free(tom);
	mtx_destroy(&tom->retry_lock);
	free(tom, M_TOEHOLD);
	return (error);
}

/*
 * Off for good: no connection, no listener, no half-open entry is left.  The
 * adapter answers when it has closed a listener, so wait for that, bounded.
 */
static int
th_quiesce(struct th_tom *tom)
{
	int error, tries;

	toehold_stop_listeners(tom->rs);
	for (tries = 0; tries < 200; tries++) {
		error = toehold_deactivate(tom->rs);
		if (error != EBUSY || !toehold_closing(tom->rs))
			return (error);
		pause("tohlsn", MAX(hz / 100, 1));
	}
	return (EBUSY);
}

static int
th_deactivate(struct adapter *sc)
{
	struct vi_info *vi;
	struct th_tom *tom;
	int *had;
	int error, i, n, v;

	tom = sc->tom_softc;
	if (tom == NULL)
		return (0);
	if (toehold_connections(tom->rs) != 0) {
		if (tom->gauge[TH_GAUGE_ORPHANS] != 0)
			log(LOG_ERR, "%s: toehold: not unloaded: the adapter "
			    "has not said that it is done with %lu connections "
			    "and %lu pages of programs; reset it first\n",
			    TH_NAMEUNIT(sc), tom->gauge[TH_GAUGE_ORPHANS],
			    tom->gauge[TH_GAUGE_ORPHANED]);
		return (EBUSY);
	}

	/* No new listener or connection from here on. */
	unregister_toedev(&tom->tod);
	n = 0;
	for_each_port(sc, i)
		n += sc->port[i]->nvi;
	had = malloc(n * sizeof(*had), M_TOEHOLD, M_WAITOK);
	n = 0;
	for_each_port(sc, i)
		for_each_vi(sc->port[i], v, vi) {
			had[n++] = TH_IF_CAPENABLE(vi->ifp) & IFCAP_TOE;
			TH_IF_CAPENABLE_OFF(vi->ifp, IFCAP_TOE);
		}
	error = th_quiesce(tom);
	if (error != 0) {
		/* As it was.  Listeners are told by register_toedev(). */
		n = 0;
		for_each_port(sc, i)
			for_each_vi(sc->port[i], v, vi)
				TH_IF_CAPENABLE_ON(vi->ifp, had[n++]);
		register_toedev(&tom->tod);
		free(had, M_TOEHOLD);
		return (error);
	}
	free(had, M_TOEHOLD);
	sc->offload_map = 0;
	for_each_port(sc, i) {
		sc->port[i]->uld_vis = 0;
		for_each_vi(sc->port[i], v, vi)
			SETTOEDEV(vi->ifp, NULL);
	}
	EVENTHANDLER_DEREGISTER(vm_lowmem, tom->lowmem);
	th_vm_unwatch(tom);
	sc->tom_softc = NULL;
	NET_EPOCH_WAIT();		/* for th_cpl() */
	callout_drain(&tom->retry_callout);
	taskqueue_drain(taskqueue_thread, &tom->retry_task);
	sysctl_ctx_free(&tom->ctx);
	th_l2_fini(tom);
	th_vm_fini(tom);
	toehold_free(tom->rs);
	th_atids_fini(tom);
	th_stats_free(tom);
	mtx_destroy(&tom->retry_lock);
	free(tom, M_TOEHOLD);
	return (0);
}

static struct uld_info th_uld = {
	TH_ULD_METHODS(th_activate, th_deactivate),
};

static void
th_deactivate_one(struct adapter *sc, void *arg)
{
	int *error = arg;
	int rc;

	if (begin_synchronized_op(sc, NULL, SLEEP_OK | INTR_OK, "tohunl") != 0) {
		*error = EBUSY;
		return;
	}
	if (uld_active(sc, ULD_TOM)) {
		rc = t4_deactivate_uld(sc, ULD_TOM);
		if (rc != 0)
			*error = rc;
	}
	end_synchronized_op(sc, 0);
}

int
th_cxgbe_register(void)
{
	int error;

	/* First, for it says whether t4_tom has the handlers; none come yet. */
	error = TH_REGISTER_ULD(&th_uld);
	if (error == EEXIST)
		log(LOG_ERR, "toehold: another TOE driver is loaded; "
		    "kldunload t4_tom\n");
	if (error == 0)
		th_cpl_handlers(th_cpl);
	return (error);
}

int
th_cxgbe_unregister(void)
{
	int error;

	error = 0;
	t4_iterate(th_deactivate_one, &error);
	if (error == 0)
		error = TH_UNREGISTER_ULD(&th_uld);
	if (error == 0)
		th_cpl_handlers(NULL);
	return (error);
}

/* ---- atids ---------------------------------------------------------------- */

int
th_atid_alloc(struct th_tom *tom)
{

	return (alloc_atid(tom->sc, tom));
}

void
th_atid_free(struct th_tom *tom, int atid)
{

	free_atid(tom->sc, atid);
}
