/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * dev.t5nex.0: the TOE's parameters as FreeBSD's base driver shows them (toe), and the
 * simulation's own knobs and counters (sim). dev.cxl.N: queues of a port.
 */
#include "softc.h"

#define RD	(CTLFLAG_RD | CTLFLAG_MPSAFE)
#define RW	(CTLFLAG_RW | CTLFLAG_MPSAFE)

#ifdef TS_TLS_RX_PORTS
#define TS_TLS_PORTS	32	/* ports tls_rx_ports takes */

/* The list of ports is only kept: the simulated card does no TLS. */
static int
ts_sysctl_tls_rx_ports(SYSCTL_HANDLER_ARGS)
{
	struct adapter *sc = arg1;
	struct tom_tunables *tt = &sc->tt;
	int ports[TS_TLS_PORTS], none, n, rc;

	ADAPTER_LOCK(sc);
	n = tt->num_tls_rx_ports;
	if (n > 0)
		memcpy(ports, tt->tls_rx_ports, n * sizeof(ports[0]));
	ADAPTER_UNLOCK(sc);
	none = -1;
	rc = n > 0 ? SYSCTL_OUT(req, ports, n * sizeof(ports[0])) :
	    SYSCTL_OUT(req, &none, sizeof(none));
	if (rc != 0 || req->newptr == NULL)
		return (rc);
	if (req->newlen % sizeof(int) != 0 || req->newlen > sizeof(ports))
		return (EINVAL);
	n = req->newlen / sizeof(int);
	rc = SYSCTL_IN(req, ports, req->newlen);
	if (rc != 0)
		return (rc);
	if (n == 1 && ports[0] == -1)
		n = 0;
	ADAPTER_LOCK(sc);
	memcpy(tt->tls_rx_ports, ports, n * sizeof(ports[0]));
	tt->num_tls_rx_ports = n;
	ADAPTER_UNLOCK(sc);
	return (0);
}
#endif

/* Timer values a T5 reports, in us; the simulated card has its own, under sim. */
static const struct {
	const char *name;
	u_long us;
	const char *descr;
} ts_timers[] = {
	{ "dack_timer", 100, "DACK timer (us)" },
	{ "rexmt_min", 5000, "Minimum retransmit interval (us)" },
	{ "rexmt_max", 64000000, "Maximum retransmit interval (us)" },
	{ "persist_min", 5000, "Persist timer min (us)" },
	{ "persist_max", 64000000, "Persist timer max (us)" },
	{ "keepalive_idle", 7200000000, "Keepalive idle timer (us)" },
	{ "keepalive_interval", 75000000, "Keepalive interval timer (us)" },
	{ "initial_srtt", 1000000, "Initial SRTT (us)" },
	{ "finwait2_timer", 60000000, "FINWAIT2 timer (us)" },
};

static const struct {
	const char *name;
	u_int count;
	const char *descr;
} ts_counts[] = {
	{ "syn_rexmt_count", 8, "Number of SYN retransmissions before abort" },
	{ "rexmt_count", 14, "Number of retransmissions before abort" },
	{ "keepalive_count", 9, "Number of keepalive probes before abort" },
};

static char ts_tick_us[] = "4.096";
static char ts_ts_tick_us[] = "1000";
static char ts_dack_tick_us[] = "0.512";

static const struct {
	const char *name;
	char *val;
	const char *descr;
} ts_ticks[] = {
	{ "timer_tick", ts_tick_us, "TP timer tick (us)" },
	{ "timestamp_tick", ts_ts_tick_us, "TCP timestamp tick (us)" },
	{ "dack_tick", ts_dack_tick_us, "DACK tick (us)" },
};

static void
ts_sysctl_toe_timers(struct ts_softc *ts, struct sysctl_oid_list *toe)
{
	struct sysctl_ctx_list *ctx = &ts->ctx;
	struct sysctl_oid *oid;
	char name[8];
	u_int i;

	for (i = 0; i < nitems(ts_ticks); i++)
		SYSCTL_ADD_STRING(ctx, toe, OID_AUTO, ts_ticks[i].name, RD,
		    ts_ticks[i].val, 0, ts_ticks[i].descr);
	for (i = 0; i < nitems(ts_timers); i++)
		SYSCTL_ADD_ULONG(ctx, toe, OID_AUTO, ts_timers[i].name, RD,
		    __DECONST(u_long *, &ts_timers[i].us), ts_timers[i].descr);
	for (i = 0; i < nitems(ts_counts); i++)
		SYSCTL_ADD_UINT(ctx, toe, OID_AUTO, ts_counts[i].name, RD,
		    NULL, ts_counts[i].count, ts_counts[i].descr);
	oid = SYSCTL_ADD_NODE(ctx, toe, OID_AUTO, "rexmt_backoff", RD, NULL,
	    "TOE retransmit backoffs");
	for (i = 0; i < 16; i++) {
		snprintf(name, sizeof(name), "%u", i);
		SYSCTL_ADD_UINT(ctx, SYSCTL_CHILDREN(oid), OID_AUTO, name, RD,
		    NULL, MIN(i, 10), "power of 2");
	}
}

static void
ts_sysctl_toe(struct ts_softc *ts, struct sysctl_oid_list *root)
{
	struct sysctl_ctx_list *ctx = &ts->ctx;
	struct tom_tunables *tt = &ts->sc.tt;
	struct sysctl_oid_list *toe;
	const struct {
		const char *name;
		int *val;
		const char *descr;
	} ints[] = {
		{ "cong_algorithm", &tt->cong_algorithm, "congestion control "
		    "(-1 = default, 0 = reno, 1 = tahoe, 2 = newreno, "
		    "3 = highspeed)" },
		{ "sndbuf", &tt->sndbuf, "hardware send buffer" },
		{ "ddp", &tt->ddp, "DDP allowed" },
		{ "rx_zcopy", &tt->ddp, "zero-copy aio_read(2)" },
		{ "rx_coalesce", &tt->rx_coalesce, "receive coalescing" },
		{ "tls", &tt->tls, "inline TLS allowed" },
		{ "tx_align", &tt->tx_align, "chop and align payload" },
		{ "tx_zcopy", &tt->tx_zcopy, "zero-copy aio_write(2)" },
		{ "cop_managed_offloading", &tt->cop_managed_offloading,
		    "a connection offload policy decides all offload" },
#ifdef TS_TUNABLES_14
		{ "autorcvbuf_inc", &tt->autorcvbuf_inc,
		    "step of the receive buffer's automatic growth" },
		{ "update_hc_on_pmtu_change", &tt->update_hc_on_pmtu_change,
		    "update the host cache when the path MTU changes" },
		{ "iso", &tt->iso, "iSCSI segmentation offload" },
#endif
	};
	u_int i;

	toe = SYSCTL_CHILDREN(SYSCTL_ADD_NODE(ctx, root, OID_AUTO, "toe", RD,
	    NULL, "TOE parameters"));
	for (i = 0; i < nitems(ints); i++)
		SYSCTL_ADD_INT(ctx, toe, OID_AUTO, ints[i].name, RW,
		    ints[i].val, 0, ints[i].descr);
#ifdef TS_TLS_RX_PORTS
	tt->tls_rx_ports = malloc(TS_TLS_PORTS * sizeof(int), M_CXGBE,
	    M_WAITOK | M_ZERO);
	SYSCTL_ADD_PROC(ctx, toe, OID_AUTO, "tls_rx_ports", CTLTYPE_INT | RW,
	    &ts->sc, 0, ts_sysctl_tls_rx_ports, "I",
	    "TCP ports that use inline TLS on receive");
#endif
	ts_sysctl_toe_timers(ts, toe);
}

static int
ts_sysctl_knob(SYSCTL_HANDLER_ARGS)
{
	struct ts_softc *ts = arg1;
	uint64_t val;
	int rc;

	sx_xlock(&ts->card_lock);
	val = t5sim_knob_get(ts->card, arg2);
	sx_xunlock(&ts->card_lock);
	rc = sysctl_handle_64(oidp, &val, 0, req);
	if (rc != 0 || req->newptr == NULL)
		return (rc);
	sx_xlock(&ts->card_lock);
	rc = t5sim_knob_set(ts->card, arg2, val);
	sx_xunlock(&ts->card_lock);
	ts_engine_kick(ts);
	return (rc);
}

static int
ts_sysctl_stat(SYSCTL_HANDLER_ARGS)
{
	struct ts_softc *ts = arg1;
	uint64_t val;

	sx_xlock(&ts->card_lock);
	val = t5sim_stat_get(ts->card, arg2);
	sx_xunlock(&ts->card_lock);
	return (sysctl_handle_64(oidp, &val, 0, req));
}

static const struct {
	const char *name;
	uint32_t fault;
	const char *descr;
} ts_faults[] = {
	{ "reset_conn", T5SIM_FAULT_RESET,
	    "write a tid: its peer resets the connection" },
	{ "end_ddp", T5SIM_FAULT_DDP_OFF,
	    "write a tid: its next bytes end DDP for it" },
	{ "stale_tag0", T5SIM_FAULT_STALE_TAG0,
	    "write a tid: the tag of its DDP buffer 0 is spoilt" },
	{ "stale_tag1", T5SIM_FAULT_STALE_TAG1,
	    "write a tid: the tag of its DDP buffer 1 is spoilt" },
	{ "drop_next", T5SIM_FAULT_DROP,
	    "write a number: the wire loses so many data segments" },
	{ "find_lost", T5SIM_FAULT_FIND,
	    "write any number: answers that were lost come after all" },
};

/* arg2: an index of ts_faults. */
static int
ts_sysctl_fault(SYSCTL_HANDLER_ARGS)
{
	struct ts_softc *ts = arg1;
	int arg, rc;

	arg = -1;
	rc = sysctl_handle_int(oidp, &arg, 0, req);
	if (rc != 0 || req->newptr == NULL)
		return (rc);
	if (arg < 0)
		return (EINVAL);
	sx_xlock(&ts->card_lock);
	rc = t5sim_card_fault(ts->card, ts_now(), ts_faults[arg2].fault, arg);
	sx_xunlock(&ts->card_lock);
	ts_engine_kick(ts);
	return (rc);
}

#ifdef TS_HAVE_STOP
static int
ts_sysctl_stopped(SYSCTL_HANDLER_ARGS)
{
	struct ts_softc *ts = arg1;
	int rc, val;

	val = ts_is_off(ts);
	rc = sysctl_handle_int(oidp, &val, 0, req);
	if (rc != 0 || req->newptr == NULL)
		return (rc);
	if (val != 0 && val != 1)
		return (EINVAL);
	return (val != 0 ? ts_suspend(ts) : ts_resume(ts));
}
#endif

static int
ts_sysctl_check(SYSCTL_HANDLER_ARGS)
{
	struct ts_softc *ts = arg1;
	char text[160];

	sx_xlock(&ts->card_lock);
	if (t5sim_card_check(ts->card, text, sizeof(text)) == 0)
		strlcpy(text, "ok", sizeof(text));
	sx_xunlock(&ts->card_lock);
	return (SYSCTL_OUT(req, text, strlen(text) + 1));
}

static int
ts_sysctl_conns(SYSCTL_HANDLER_ARGS)
{
	struct ts_softc *ts = arg1;
	char text[200];
	size_t len;
	uint32_t n;
	int rc;

	for (n = 0;; n++) {
		sx_xlock(&ts->card_lock);
		rc = t5sim_card_conn(ts->card, n, text, sizeof(text) - 1);
		sx_xunlock(&ts->card_lock);
		if (rc != 0)
			break;
		len = strlen(text);
		text[len] = '\n';
		rc = SYSCTL_OUT(req, text, len + 1);
		if (rc != 0)
			return (rc);
	}
	return (SYSCTL_OUT(req, "", 1));
}

static void
ts_sysctl_sim(struct ts_softc *ts, struct sysctl_oid_list *root)
{
	struct sysctl_ctx_list *ctx = &ts->ctx;
	struct sysctl_oid_list *sim, *stats;
	uint32_t i;
	const struct {
		const char *name;
		uint64_t *val;
		const char *descr;
	} own[] = {
		{ "wr_start_failures", &ts->n_wr_fail,
		    "work requests refused by wr_fail_nth" },
#ifdef TS_HAVE_STOP
		{ "wr_while_stopped", &ts->n_wr_off,
		    "work requests that came while the adapter was stopped" },
#endif
		{ "cpls_unhandled", &ts->n_cpl_unhandled,
		    "CPLs no driver had a handler for" },
		{ "cpls_bad_queue", &ts->n_cpl_badq,
		    "CPLs for a queue that does not exist" },
		{ "port_frames", &ts->n_frames, "frames from port to port" },
		{ "port_frame_drops", &ts->n_frame_drops,
		    "frames a port had to drop" },
	};

	sim = SYSCTL_CHILDREN(SYSCTL_ADD_NODE(ctx, root, OID_AUTO, "sim", RD,
	    NULL, "simulation"));
	for (i = 0; i < t5sim_nknobs(); i++)
		SYSCTL_ADD_PROC(ctx, sim, OID_AUTO, t5sim_knob_name(i),
		    CTLTYPE_U64 | CTLFLAG_RWTUN | CTLFLAG_MPSAFE, ts, i,
		    ts_sysctl_knob, "QU", t5sim_knob_descr(i));
	SYSCTL_ADD_UINT(ctx, sim, OID_AUTO, "wr_fail_nth", RW,
	    &ts->wr_fail_nth, 0,
	    "let every n-th work request find no room; 0: none");
	for (i = 0; i < nitems(ts_faults); i++)
		SYSCTL_ADD_PROC(ctx, sim, OID_AUTO, ts_faults[i].name,
		    CTLTYPE_INT | RW, ts, i, ts_sysctl_fault, "I",
		    ts_faults[i].descr);
#ifdef TS_HAVE_STOP
	SYSCTL_ADD_PROC(ctx, sim, OID_AUTO, "stopped", CTLTYPE_INT | RW, ts, 0,
	    ts_sysctl_stopped, "I",
	    "1: the adapter stops and is reset; 0: it works again");
#endif
	SYSCTL_ADD_UINT(ctx, sim, OID_AUTO, "l2t_size", RD,
	    &ts->sc.l2t->l2t_size, 0, "entries of the L2 table");
	SYSCTL_ADD_UINT(ctx, sim, OID_AUTO, "l2t_free", RD,
	    __DEVOLATILE(u_int *, &ts->sc.l2t->nfree), 0,
	    "those that nobody uses");
	SYSCTL_ADD_PROC(ctx, sim, OID_AUTO, "check", CTLTYPE_STRING | RD, ts,
	    0, ts_sysctl_check, "A", "the card's invariants: ok, or what broke");
	SYSCTL_ADD_PROC(ctx, sim, OID_AUTO, "conns", CTLTYPE_STRING | RD, ts,
	    0, ts_sysctl_conns, "A", "connections, one a line");

	stats = SYSCTL_CHILDREN(SYSCTL_ADD_NODE(ctx, sim, OID_AUTO, "stats",
	    RD, NULL, "statistics"));
	for (i = 0; i < t5sim_nstats(); i++)
		SYSCTL_ADD_PROC(ctx, stats, OID_AUTO, t5sim_stat_name(i),
		    CTLTYPE_U64 | RD, ts, i, ts_sysctl_stat, "QU",
		    t5sim_stat_descr(i));
	for (i = 0; i < nitems(own); i++)
		SYSCTL_ADD_U64(ctx, stats, OID_AUTO, own[i].name, RD,
		    own[i].val, 0, own[i].descr);
}

/* May sleep. */
void
ts_sysctl_port_attach(struct ts_softc *ts, int i)
{
	struct sysctl_ctx_list *ctx = &ts->port_ctx[i];
	struct vi_info *vi = &ts->vi[i];
	struct sysctl_oid_list *c;

	sysctl_ctx_init(ctx);
	c = ts_sysctl_port_node(ts, ctx, i);
	SYSCTL_ADD_UINT(ctx, c, OID_AUTO, "viid", RD, NULL, vi->viid,
	    "VI identifier");
	SYSCTL_ADD_INT(ctx, c, OID_AUTO, "nofldrxq", RD, &vi->nofldrxq, 0,
	    "# of rx queues for offloaded TCP connections");
	SYSCTL_ADD_INT(ctx, c, OID_AUTO, "first_ofld_rxq", RD,
	    &vi->first_ofld_rxq, 0, "index of first TOE rx queue");
	SYSCTL_ADD_INT(ctx, c, OID_AUTO, "nofldtxq", RD, &vi->nofldtxq, 0,
	    "# of tx queues for offloaded TCP connections");
	SYSCTL_ADD_INT(ctx, c, OID_AUTO, "first_ofld_txq", RD,
	    &vi->first_ofld_txq, 0, "index of first TOE tx queue");
}

void
ts_sysctl_port_detach(struct ts_softc *ts, int i)
{

	(void)sysctl_ctx_free(&ts->port_ctx[i]);
}

/* The engine runs already: the kernel may apply loader tunables here. May sleep. */
void
ts_sysctl_attach(struct ts_softc *ts)
{
	struct sysctl_oid_list *node;

	sysctl_ctx_init(&ts->ctx);
	node = ts_sysctl_node(ts, &ts->ctx);
	ts_sysctl_toe(ts, node);
	ts_sysctl_sim(ts, node);
}

/* Waits for handlers that run. */
void
ts_sysctl_detach(struct ts_softc *ts)
{

	(void)sysctl_ctx_free(&ts->ctx);
}
