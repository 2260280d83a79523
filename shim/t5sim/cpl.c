/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Received CPLs: the table of handlers, replies that have one of several owners, and
 * delivery. The bytes lie as on hardware: behind the rss_header for most CPLs, at the
 * start of an mbuf for those that bring payload.
 *
 * Handlers run in the engine thread, in the order the card sent the CPLs, with no lock
 * held and inside a net epoch. Taking a handler away waits for that epoch, so that the
 * handler's module can go afterwards.
 */
#include "softc.h"

#include <sys/epoch.h>
#include <machine/atomic.h>

static int ts_shared_rpl(struct sge_iq *, const struct rss_header *,
    struct mbuf *);

/* By opcode. Its name and type are if_cxgbe's: drivers call handlers of others by it. */
cpl_handler_t t4_cpl_handler[NUM_CPL_CMDS] = {
	[CPL_SET_TCB_RPL] = ts_shared_rpl,
	[CPL_L2T_WRITE_RPL] = ts_shared_rpl,
	[CPL_ACT_OPEN_RPL] = ts_shared_rpl,
	[CPL_ABORT_RPL_RSS] = ts_shared_rpl,
	[CPL_FW4_ACK] = ts_shared_rpl,
};

static cpl_handler_t ts_set_tcb_rpl[NUM_CPL_COOKIES];
static cpl_handler_t ts_l2t_write_rpl[NUM_CPL_COOKIES];
static cpl_handler_t ts_act_open_rpl[NUM_CPL_COOKIES];
static cpl_handler_t ts_abort_rpl_rss[NUM_CPL_COOKIES];
static cpl_handler_t ts_fw4_ack[NUM_CPL_COOKIES];

/* Put or take a handler; taking may sleep. */
static void
ts_handler_set(cpl_handler_t *slot, cpl_handler_t h, int opcode)
{

	if (h != NULL && *slot != NULL) {
		printf("t5sim: CPL 0x%02x has a handler already\n", opcode);
		return;
	}
	atomic_store_rel_ptr((volatile uintptr_t *)slot, (uintptr_t)h);
	if (h == NULL)
		epoch_wait_preempt(net_epoch_preempt);
}

static cpl_handler_t
ts_handler_get(cpl_handler_t *slot)
{

	return ((cpl_handler_t)atomic_load_acq_ptr((volatile uintptr_t *)slot));
}

static cpl_handler_t *
ts_shared(int opcode)
{

	switch (opcode) {
	case CPL_SET_TCB_RPL:
		return (ts_set_tcb_rpl);
	case CPL_L2T_WRITE_RPL:
		return (ts_l2t_write_rpl);
	case CPL_ACT_OPEN_RPL:
		return (ts_act_open_rpl);
	case CPL_ABORT_RPL_RSS:
		return (ts_abort_rpl_rss);
	case CPL_FW4_ACK:
		return (ts_fw4_ack);
	default:
		return (NULL);
	}
}

void
t4_register_cpl_handler(int opcode, cpl_handler_t h)
{

	if (opcode < 0 || opcode >= NUM_CPL_CMDS || ts_shared(opcode) != NULL) {
		printf("t5sim: CPL 0x%02x takes no handler without a cookie\n",
		    opcode);
		return;
	}
	ts_handler_set(&t4_cpl_handler[opcode], h, opcode);
}

void
t4_register_shared_cpl_handler(int opcode, cpl_handler_t h, int cookie)
{
	cpl_handler_t *tab;

	tab = ts_shared(opcode);
	if (tab == NULL || cookie <= CPL_COOKIE_RESERVED ||
	    cookie >= NUM_CPL_COOKIES) {
		printf("t5sim: CPL 0x%02x is not shared by cookie %d\n", opcode,
		    cookie);
		return;
	}
	ts_handler_set(&tab[cookie], h, opcode);
}

/* Whose reply it is; the adapter has no filters, so the rest is the TOE's. */
static int
ts_cookie(const struct rss_header *rss)
{
	const void *cpl = rss + 1;
	const struct cpl_set_tcb_rpl *set;
	const struct cpl_act_open_rpl *open;
	const struct cpl_l2t_write_rpl *l2t;

	switch (rss->opcode) {
	case CPL_SET_TCB_RPL:
		set = cpl;
		return (G_COOKIE(set->cookie));
	case CPL_ACT_OPEN_RPL:
		open = cpl;
		return (G_TID_COOKIE(
		    G_AOPEN_ATID(be32toh(open->atid_status))));
	case CPL_L2T_WRITE_RPL:
		l2t = cpl;
		return ((GET_TID(l2t) & F_SYNC_WR) != 0 ? CPL_COOKIE_TOM :
		    CPL_COOKIE_FILTER);
	default:
		return (CPL_COOKIE_TOM);
	}
}

static int
ts_cpl_call(cpl_handler_t h, struct sge_iq *iq, const struct rss_header *rss,
    struct mbuf *m)
{

	if (h == NULL) {
		/* The write of a stale L2 entry, a reply after unload. */
		ts_of(iq->adapter)->n_cpl_unhandled++;
		m_freem(m);
		return (0);
	}
	return (h(iq, rss, m));
}

static int
ts_shared_rpl(struct sge_iq *iq, const struct rss_header *rss, struct mbuf *m)
{
	cpl_handler_t *tab = ts_shared(rss->opcode);

	return (ts_cpl_call(ts_handler_get(&tab[ts_cookie(rss)]), iq, rss, m));
}

static void
ts_handlers_clear(cpl_handler_t *tab, int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (tab[i] != ts_shared_rpl)
			atomic_store_rel_ptr((volatile uintptr_t *)&tab[i], 0);
}

/*
 * No driver is registered: none has a handler, not even one that forgot to take it away.
 * May sleep.
 */
void
ts_cpl_forget(void)
{
	static cpl_handler_t *const shared[] = { ts_set_tcb_rpl,
	    ts_l2t_write_rpl, ts_act_open_rpl, ts_abort_rpl_rss, ts_fw4_ack };
	u_int i;

	ts_handlers_clear(t4_cpl_handler, NUM_CPL_CMDS);
	for (i = 0; i < nitems(shared); i++)
		ts_handlers_clear(shared[i], NUM_CPL_COOKIES);
	epoch_wait_preempt(net_epoch_preempt);
}

/* A packet of both pieces. May sleep. */
static struct mbuf *
ts_cpl_mbuf(const uint8_t *cpl, size_t len, const uint8_t *payload,
    size_t plen)
{
	const uint8_t *src[2] = { cpl, payload };
	size_t left[2] = { len, plen };
	struct mbuf *m0, *m;
	size_t n;
	int i;

	m0 = m_getm2(NULL, len + plen, M_WAITOK, MT_DATA, M_PKTHDR);
	for (m = m0, i = 0; i < 2;) {
		n = MIN(left[i], (size_t)M_TRAILINGSPACE(m));
		memcpy(mtod(m, uint8_t *) + m->m_len, src[i], n);
		m->m_len += n;
		src[i] += n;
		left[i] -= n;
		if (left[i] == 0)
			i++;
		else
			m = m->m_next;
	}
	m0->m_pkthdr.len = len + plen;
	return (m0);
}

/* A CPL that comes with payload on hardware, if only now and then. */
static bool
ts_cpl_in_mbuf(uint8_t opcode, size_t plen)
{

	return (plen != 0 || opcode == CPL_RX_DATA ||
	    opcode == CPL_PASS_ACCEPT_REQ || opcode == CPL_GET_TCB_RPL);
}

void
ts_cpl(struct ts_sink *sink, uint16_t rxq, const uint8_t *cpl, size_t len,
    const uint8_t *payload, size_t plen)
{
	struct ts_cpl_rec *r;

	if (len == 0)
		return;
	/* A descriptor's room, so that no handler reads past the record. */
	r = malloc(offsetof(struct ts_cpl_rec, cpl) + MAX(len, 64), M_CXGBE,
	    M_WAITOK | M_ZERO);
	r->rxq = rxq;
	r->rss.opcode = cpl[0];
	r->rss.qid = htobe16(rxq);
	if (ts_cpl_in_mbuf(cpl[0], plen))
		r->m = ts_cpl_mbuf(cpl, len, payload, plen);
	else
		memcpy(r->cpl, cpl, len);
	STAILQ_INSERT_TAIL(sink, r, link);
}

static void
ts_cpl_deliver_one(struct ts_softc *ts, struct ts_cpl_rec *r)
{
	struct sge_iq *iq;
	u_int q;

	q = r->rxq - TS_IQ_BASE;
	if (r->rxq == ts->sc.sge.fwq.abs_id)
		iq = &ts->sc.sge.fwq;
	else if (r->rxq >= TS_IQ_BASE && q < TS_NOFLDQ)
		iq = &ts->ofld_rxq[q].iq;
	else {
		ts->n_cpl_badq++;
		m_freem(r->m);
		return;
	}
	(void)ts_cpl_call(r->rss.opcode < NUM_CPL_CMDS ?
	    ts_handler_get(&t4_cpl_handler[r->rss.opcode]) : NULL, iq, &r->rss,
	    r->m);
}

/* Engine thread, no lock held. */
void
ts_cpl_deliver(struct ts_softc *ts, struct ts_sink *sink)
{
	struct epoch_tracker et;
	struct ts_cpl_rec *r;

	while ((r = STAILQ_FIRST(sink)) != NULL) {
		STAILQ_REMOVE_HEAD(sink, link);
		epoch_enter_preempt(net_epoch_preempt, &et);
		ts_cpl_deliver_one(ts, r);
		epoch_exit_preempt(net_epoch_preempt, &et);
		free(r, M_CXGBE);
	}
}
