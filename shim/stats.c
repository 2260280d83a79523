/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Counters and gauges, and the sysctls that show them and set the tunables.
 */
#include "internal.h"

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
	{ "bad_wrs", "work requests that could not be built" },
	{ "listen_rejects", "SYNs that were not offloaded" },
	{ "l2_failures", "work requests dropped for want of a next hop" },
};

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
	{ "orphaned_pages", "orphaned_pages_max",
	    "pages kept wired because the adapter does not say it is done" },
	{ "orphans", "orphans_max",
	    "connections kept for that reason" },
};

/* ---- Counting ------------------------------------------------------------ */

void
th_count(struct th_tom *tom, uint32_t class, uint32_t counter, uint64_t n)
{

	if (counter < TH_NCOUNTERS)
		counter_u64_add(tom->counters[MIN(class, TH_NCLASSES)][counter],
		    n);
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
th_stats_alloc(struct th_tom *tom)
{
	int c, i;

	for (c = 0; c <= TH_NCLASSES; c++)
		for (i = 0; i < TH_NCOUNTERS; i++)
			tom->counters[c][i] = counter_u64_alloc(M_WAITOK);
}

void
th_stats_free(struct th_tom *tom)
{
	int c, i;

	for (c = 0; c <= TH_NCLASSES; c++)
		for (i = 0; i < TH_NCOUNTERS; i++)
			counter_u64_free(tom->counters[c][i]);
}

/* ---- sysctls ------------------------------------------------------------- */

/* A counter of all classes: summed here, so that to count is one addition. */
static int
th_sysctl_sum(SYSCTL_HANDLER_ARGS)
{
	struct th_tom *tom;
	uint64_t sum;
	int c;

	tom = arg1;
	sum = 0;
	for (c = 0; c <= TH_NCLASSES; c++)
		sum += counter_u64_fetch(tom->counters[c][arg2]);
	return (sysctl_handle_64(oidp, &sum, 0, req));
}

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
void
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
	SYSCTL_ADD_INT(&tom->ctx, kids, OID_AUTO, "answer_timeout",
	    CTLFLAG_RWTUN | CTLFLAG_MPSAFE, &tom->answer_timeout, 0,
	    "seconds until an answer of the adapter is not waited for");
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
	for (i = 0; i < TH_NCOUNTERS; i++)
		SYSCTL_ADD_PROC(&tom->ctx, kids, OID_AUTO, th_counters[i].name,
		    CTLTYPE_U64 | CTLFLAG_RD | CTLFLAG_MPSAFE, tom, i,
		    th_sysctl_sum, "QU", th_counters[i].descr);
	for (i = 0; i < TH_NCLASSES; i++) {
		oid = SYSCTL_ADD_NODE(&tom->ctx, kids, OID_AUTO,
		    th_classes[i].name, CTLFLAG_RD | CTLFLAG_MPSAFE, NULL,
		    th_classes[i].descr);
		for (n = 0; n < TH_NCONN_COUNTERS; n++)
			SYSCTL_ADD_COUNTER_U64(&tom->ctx, SYSCTL_CHILDREN(oid),
			    OID_AUTO, th_counters[n].name,
			    CTLFLAG_RD | CTLFLAG_MPSAFE,
			    &tom->counters[i][n], th_counters[n].descr);
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
