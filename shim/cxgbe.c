/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The upper-layer driver side of cxgbe: activation on an adapter, CPL dispatch,
 * work requests, tunables, counters and their sysctls.
 */
#include "internal.h"

#include <sys/epoch.h>
#include <sys/syslog.h>
#include <dev/cxgbe/common/t4_regs.h>
#include <dev/cxgbe/common/t4_msg.h>

/* Order and number are those of the Rust half's `Counter'. */
static const struct {
	const char *name;
	const char *descr;
} th_counters[TH_NCOUNTERS] = {
	{ "rx_aio_ddp_jobs", "aio_read jobs claimed" },
	{ "rx_aio_ddp_octets", "octets placed in user memory by the adapter" },
	{ "rx_moved_octets",
	    "octets placed by the adapter, then moved within the buffer" },
	{ "rx_copied_before_ddp",
	    "octets copied to aio_read buffers: arrived before DDP was on" },
	{ "rx_copied_no_buffer",
	    "octets copied to aio_read buffers: no buffer was posted" },
	{ "rx_copied_no_ppods",
	    "octets copied to aio_read buffers: no page pods were free" },
	{ "rx_copied_ddp_off",
	    "octets copied to aio_read buffers: the adapter left DDP" },
	{ "rx_copied_no_budget",
	    "octets copied to aio_read buffers: no pages could be wired" },
	{ "rx_copied_vectored", "octets copied to aio_readv buffers" },
	{ "rx_plain_octets", "octets received by other means than aio_read" },
	{ "rx_short", "aio_read jobs that ended short" },
	{ "tx_aio_jobs", "aio_write jobs claimed" },
	{ "tx_aio_octets", "octets sent from pages of aio_write buffers" },
	{ "tx_copied_octets", "octets of claimed aio_writes that were copied" },
	{ "tx_plain_octets", "octets sent from ordinary mbufs" },
	{ "cache_hits", "buffers found in the page-set cache" },
	{ "cache_misses", "buffers that had to be faulted in and wired" },
	{ "cache_evictions", "page sets thrown out of the cache" },
	{ "ppods_written", "page pods written" },
	{ "ppod_wrs", "work requests that wrote page pods" },
	{ "wrs", "work requests sent" },
	{ "no_ppods", "times no page pods were free" },
	{ "no_wr", "times no work request could be had" },
	{ "cancel_clean", "jobs cancelled before anything moved" },
	{ "cancel_short", "jobs cancelled after something moved" },
	{ "cancel_late", "reads found full when they were taken back" },
	{ "bad_cpls", "connections closed for a message that made no sense" },
	{ "listen_rejects", "SYNs that were not offloaded" },
	{ "l2_failures", "work requests dropped for want of a next hop" },
};

/* The first so many are about connections, the others come before there is one. */
#define TH_NCONN_COUNTERS	27

static const struct {
	const char *name;
	const char *descr;
} th_classes[TH_NCLASSES] = {
	{ "active", "connections opened from here" },
	{ "passive", "connections opened by the peer" },
};

static const struct {
	const char *name, *max;
	const char *descr;
} th_gauges[TH_NGAUGES] = {
	{ "wired_pages", "wired_pages_max", "pages of user buffers wired" },
	{ "ppods_used", "ppods_used_max", "page pods in use" },
	{ "toepcbs", "toepcbs_max", "offloaded connections" },
};

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
	t->tx_zcopy_min = tom->tx_zcopy_min;
}

void
th_count(struct th_tom *tom, uint32_t class, uint32_t counter, uint64_t n)
{

	if (counter >= TH_NCOUNTERS)
		return;
	counter_u64_add(tom->counters[counter], n);
	if (class < TH_NCLASSES)
		counter_u64_add(tom->by_class[class][counter], n);
}

static void
th_counters_alloc(struct th_tom *tom)
{
	int c, i;

	for (i = 0; i < TH_NCOUNTERS; i++) {
		tom->counters[i] = counter_u64_alloc(M_WAITOK);
		for (c = 0; c < TH_NCLASSES; c++)
			tom->by_class[c][i] = counter_u64_alloc(M_WAITOK);
	}
}

static void
th_counters_free(struct th_tom *tom)
{
	int c, i;

	for (i = 0; i < TH_NCOUNTERS; i++) {
		counter_u64_free(tom->counters[i]);
		for (c = 0; c < TH_NCLASSES; c++)
			counter_u64_free(tom->by_class[c][i]);
	}
}

static void
th_sysctl_counters(struct th_tom *tom, struct sysctl_oid_list *kids,
    counter_u64_t *counters, int n)
{
	int i;

	for (i = 0; i < n; i++)
		SYSCTL_ADD_COUNTER_U64(&tom->ctx, kids, OID_AUTO,
		    th_counters[i].name, CTLFLAG_RD | CTLFLAG_MPSAFE,
		    &counters[i], th_counters[i].descr);
}

void
th_gauge(struct th_tom *tom, uint32_t gauge, int64_t delta)
{
	u_long now, max;

	if (gauge >= TH_NGAUGES)
		return;
	now = atomic_fetchadd_long(&tom->gauge[gauge], (u_long)delta) +
	    (u_long)delta;
	for (max = tom->gauge_max[gauge]; now > max && delta > 0;
	    max = tom->gauge_max[gauge])
		if (atomic_cmpset_long(&tom->gauge_max[gauge], max, now))
			break;
}

void
th_log(struct th_tom *tom, const char *msg, uint64_t a, uint64_t b)
{
	static struct timeval last;
	static int pps;

	if (ppsratecheck(&last, &pps, 10))
		log(LOG_WARNING, "%s: toehold: %s (%ju, %ju)\n",
		    TH_NAMEUNIT(tom->sc), msg, (uintmax_t)a, (uintmax_t)b);
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

void
th_retry_schedule(struct th_tom *tom, uint32_t ms)
{

	if (!callout_pending(&tom->retry_callout))
		callout_reset_sbt(&tom->retry_callout, SBT_1MS * ms, 0,
		    th_retry_timeout, tom, 0);
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

/* ---- sysctls ------------------------------------------------------------ */

#define TH_PPODS_TOTAL		0
#define TH_PPODS_LARGEST	1

static int
th_sysctl_ppods(SYSCTL_HANDLER_ARGS)
{
	struct th_tom *tom;
	uint32_t largest, total;
	u_long v;

	tom = arg1;
	toehold_ppods(tom->rs, &total, &largest);
	v = arg2 == TH_PPODS_TOTAL ? total : largest;
	return (sysctl_handle_long(oidp, &v, 0, req));
}

/*
 * Our nodes join those of the base driver below dev.<nexus>.N.toe.  Adding a
 * node that is there already only counts a reference, so this works with and
 * without newbus, and our context removes just what is ours.
 */
static void
th_sysctls(struct th_tom *tom)
{
	struct sysctl_oid *oid;
	struct sysctl_oid_list *kids;
	const char *nameunit, *unit;
	char name[16];
	u_int i, n;

	sysctl_ctx_init(&tom->ctx);
	nameunit = TH_NAMEUNIT(tom->sc);
	n = 0;
	while (nameunit[n] != '\0' && n < sizeof(name) - 1)
		n++;
	while (n > 0 && nameunit[n - 1] >= '0' && nameunit[n - 1] <= '9')
		n--;
	bcopy(nameunit, name, n);
	name[n] = '\0';
	unit = nameunit + n;

	oid = SYSCTL_ADD_NODE(&tom->ctx, SYSCTL_STATIC_CHILDREN(_dev), OID_AUTO,
	    name, CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "");
	oid = SYSCTL_ADD_NODE(&tom->ctx, SYSCTL_CHILDREN(oid), OID_AUTO, unit,
	    CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "");
	oid = SYSCTL_ADD_NODE(&tom->ctx, SYSCTL_CHILDREN(oid), OID_AUTO, "toe",
	    CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "TOE parameters");
	kids = SYSCTL_CHILDREN(oid);
	SYSCTL_ADD_INT(&tom->ctx, kids, OID_AUTO, "ddp_cache",
	    CTLFLAG_RWTUN | CTLFLAG_MPSAFE, &tom->ddp_cache, 0,
	    "page sets kept wired for each connection");
	SYSCTL_ADD_INT(&tom->ctx, kids, OID_AUTO, "tx_zcopy_min",
	    CTLFLAG_RWTUN | CTLFLAG_MPSAFE, &tom->tx_zcopy_min, 0,
	    "bytes of an aio_write below which it is copied");
	SYSCTL_ADD_ULONG(&tom->ctx, kids, OID_AUTO, "max_wired",
	    CTLFLAG_RWTUN | CTLFLAG_MPSAFE, &tom->max_wired,
	    "most pages of user buffers wired at one time");
	SYSCTL_ADD_ULONG(&tom->ctx, kids, OID_AUTO, "max_wired_proc",
	    CTLFLAG_RWTUN | CTLFLAG_MPSAFE, &tom->max_wired_proc,
	    "most of them that are for one process; 0: half");
	SYSCTL_ADD_INT(&tom->ctx, kids, OID_AUTO, "memlock",
	    CTLFLAG_RWTUN | CTLFLAG_MPSAFE, &tom->memlock, 0,
	    "RLIMIT_MEMLOCK bounds what is wired for a process, too");
	oid = SYSCTL_ADD_NODE(&tom->ctx, kids, OID_AUTO, "stats",
	    CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "what toehold has done");
	kids = SYSCTL_CHILDREN(oid);
	th_sysctl_counters(tom, kids, tom->counters, TH_NCOUNTERS);
	for (i = 0; i < TH_NCLASSES; i++) {
		oid = SYSCTL_ADD_NODE(&tom->ctx, kids, OID_AUTO,
		    th_classes[i].name, CTLFLAG_RD | CTLFLAG_MPSAFE, NULL,
		    th_classes[i].descr);
		th_sysctl_counters(tom, SYSCTL_CHILDREN(oid),
		    tom->by_class[i], TH_NCONN_COUNTERS);
	}
	for (i = 0; i < TH_NGAUGES; i++) {
		SYSCTL_ADD_ULONG(&tom->ctx, kids, OID_AUTO, th_gauges[i].name,
		    CTLFLAG_RD | CTLFLAG_MPSAFE,
		    __DEVOLATILE(u_long *, &tom->gauge[i]), th_gauges[i].descr);
		SYSCTL_ADD_ULONG(&tom->ctx, kids, OID_AUTO, th_gauges[i].max,
		    CTLFLAG_RD | CTLFLAG_MPSAFE,
		    __DEVOLATILE(u_long *, &tom->gauge_max[i]),
		    "most so far of the value above");
	}
	SYSCTL_ADD_PROC(&tom->ctx, kids, OID_AUTO, "ppods_total",
	    CTLTYPE_ULONG | CTLFLAG_RD | CTLFLAG_MPSAFE, tom, TH_PPODS_TOTAL,
	    th_sysctl_ppods, "LU", "page pods of the adapter");
	SYSCTL_ADD_PROC(&tom->ctx, kids, OID_AUTO, "ppods_largest",
	    CTLTYPE_ULONG | CTLFLAG_RD | CTLFLAG_MPSAFE, tom, TH_PPODS_LARGEST,
	    th_sysctl_ppods, "LU", "longest run of free page pods");
}

/* ---- Activation ---------------------------------------------------------- */

static int
th_adapter_info(struct adapter *sc, struct th_adapter_info *ai)
{
	uint32_t psz;
	int i;

	memset(ai, 0, sizeof(*ai));
	ai->chip = chip_id(sc) >= CHELSIO_T6 ? TH_CHIP_T6 :
	    chip_id(sc) == CHELSIO_T5 ? TH_CHIP_T5 : TH_CHIP_T4;
	ai->nports = sc->params.nports;
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
	/* Only if the field means VNIC (F_VNIC of TP_INGRESS_CONFIG). */
	ai->vnic_shift = (sc->params.tp.ingress_config & (1u << 19)) != 0 ?
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
static void
th_set_tagmask(struct adapter *sc, uint32_t size)
{

	t4_set_reg_field(sc, A_ULP_RX_TDDP_TAGMASK, V_TDDPTAGMASK(M_TDDPTAGMASK),
	    V_TDDPTAGMASK(((1u << fls(size)) - 1) >> 6));
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
	tom->tx_zcopy_min = TH_TX_ZCOPY_MIN;
	tom->max_wired = physmem / 4;
	th_counters_alloc(tom);
	callout_init(&tom->retry_callout, 1);
	TASK_INIT(&tom->retry_task, 0, th_retry_task, tom);
	th_l2_init(tom);
	th_vm_init(tom);
	/* Hash filters may have made it already, and then it stays theirs. */
	if (sc->tids.atid_tab == NULL) {
		error = alloc_atid_tab(&sc->tids, M_WAITOK);
		if (error != 0)
			goto fail;
		tom->own_atids = true;
	}
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
	return (0);
fail:
	if (tom->own_atids)
		free_atid_tab(&sc->tids);
	th_vm_fini(tom);
	th_l2_fini(tom);
	th_counters_free(tom);
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
	int error, i, v;

	tom = sc->tom_softc;
	if (tom == NULL)
		return (0);
	if (toehold_connections(tom->rs) != 0)
		return (EBUSY);

	/* No new listener or connection from here on. */
	unregister_toedev(&tom->tod);
	for_each_port(sc, i)
		for_each_vi(sc->port[i], v, vi)
			TH_IF_CAPENABLE_OFF(vi->ifp, IFCAP_TOE);
	error = th_quiesce(tom);
	if (error != 0) {
		for_each_port(sc, i)
			if ((sc->offload_map & (1 << i)) != 0)
				for_each_vi(sc->port[i], v, vi)
					TH_IF_CAPENABLE_ON(vi->ifp, IFCAP_TOE4);
		register_toedev(&tom->tod);
		return (error);
	}
	sc->offload_map = 0;
	for_each_port(sc, i) {
		sc->port[i]->uld_vis = 0;
		for_each_vi(sc->port[i], v, vi)
			SETTOEDEV(vi->ifp, NULL);
	}
	EVENTHANDLER_DEREGISTER(vm_lowmem, tom->lowmem);
	sc->tom_softc = NULL;
	NET_EPOCH_WAIT();		/* for th_cpl() */
	callout_drain(&tom->retry_callout);
	taskqueue_drain(taskqueue_thread, &tom->retry_task);
	sysctl_ctx_free(&tom->ctx);
	th_l2_fini(tom);
	th_vm_fini(tom);
	toehold_free(tom->rs);
	if (tom->own_atids)
		free_atid_tab(&sc->tids);
	th_counters_free(tom);
	free(tom, M_TOEHOLD);
	return (0);
}

static struct uld_info th_uld = {
	.uld_id = ULD_TOM,
	.activate = th_activate,
	.deactivate = th_deactivate,
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
	error = t4_register_uld(&th_uld);
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
		error = t4_unregister_uld(&th_uld);
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
