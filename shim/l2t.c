/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Next hops.  The base driver owns the adapter's L2 table; which neighbour an
 * entry is for, its resolution, and the work requests that wait for it are
 * ours.
 *
 * Lock order: INP -> l2_lock -> the hardware table's locks.  The kernel calls
 * th_l2_update() with the llentry locked, which comes before l2_lock.
 */
#include "internal.h"

#include <sys/epoch.h>
#include <dev/cxgbe/t4_l2t.h>

enum th_l2_state {
	TH_L2_RESOLVING,	/* asked the kernel, no answer yet */
	TH_L2_VALID,		/* written to the adapter */
	TH_L2_FAILED		/* no such neighbour */
};

/* A work request that waits for its next hop, and is a user of it meanwhile. */
struct th_l2wr {
	STAILQ_ENTRY(th_l2wr) link;
	uint64_t cookie;
	struct wrqe *wr;
};

struct th_l2e {
	LIST_ENTRY(th_l2e) link;
	struct l2t_entry *hw;
	struct ifnet *ifp;
	uint32_t addr;		/* IPv4, network order */
	u_int refs;
	enum th_l2_state state;
	STAILQ_HEAD(, th_l2wr) waiting;
};

static struct th_l2list *
th_l2_bucket(struct th_tom *tom, uint32_t addr)
{

	/* Neighbours differ in the last bytes of the address. */
	addr = ntohl(addr);
	return (&tom->l2[(addr ^ addr >> 8) % TH_L2_BUCKETS]);
}

/* One user less; the last takes the entry along. */
static void
th_l2_put(struct th_tom *tom, struct th_l2e *e)
{

	mtx_assert(&tom->l2_lock, MA_OWNED);
	KASSERT(e->refs > 0, ("%s: %p", __func__, e));
	if (--e->refs > 0)
		return;
	KASSERT(STAILQ_EMPTY(&e->waiting), ("%s: %p", __func__, e));
	LIST_REMOVE(e, link);
	t4_l2t_release(e->hw);
	free(e, M_TOEHOLD);
}

/* Tell the Rust half of work requests that will never be sent. */
static void
th_l2_task(void *arg, int pending)
{
	struct epoch_tracker et;
	struct th_l2wr *w;
	struct th_tom *tom;

	tom = arg;
	for (;;) {
		mtx_lock(&tom->l2_lock);
		w = STAILQ_FIRST(&tom->l2_unsent);
		if (w != NULL)
			STAILQ_REMOVE_HEAD(&tom->l2_unsent, link);
		mtx_unlock(&tom->l2_lock);
		if (w == NULL)
			return;
		TH_EPOCH_ENTER(et);
		toehold_l2_failed(tom->rs, w->cookie);
		TH_EPOCH_EXIT(et);
		free_wrqe(w->wr);
		free(w, M_TOEHOLD);
	}
}

void
th_l2_init(struct th_tom *tom)
{
	u_int i;

	mtx_init(&tom->l2_lock, "toehold l2", NULL, MTX_DEF);
	for (i = 0; i < nitems(tom->l2); i++)
		LIST_INIT(&tom->l2[i]);
	STAILQ_INIT(&tom->l2_unsent);
	TASK_INIT(&tom->l2_task, 0, th_l2_task, tom);
}

void
th_l2_fini(struct th_tom *tom)
{
	u_int i;

	taskqueue_drain(taskqueue_thread, &tom->l2_task);
	for (i = 0; i < nitems(tom->l2); i++)
		KASSERT(LIST_EMPTY(&tom->l2[i]), ("%s: %p has users", __func__,
		    LIST_FIRST(&tom->l2[i])));
	mtx_destroy(&tom->l2_lock);
}

/*
 * Write the neighbour to the adapter and let go of what waited for it, and of
 * a reference of the caller's.
 */
static void
th_l2_resolved(struct th_tom *tom, struct th_l2e *e, const uint8_t *mac,
    uint16_t vtag)
{
	struct th_l2wr *w;
	struct l2t_entry *hw;

	mtx_assert(&tom->l2_lock, MA_OWNED);
	hw = e->hw;
	mtx_lock(&hw->lock);
	memcpy(hw->dmac, mac, ETHER_ADDR_LEN);
	hw->vlan = vtag;
	hw->state = L2T_STATE_VALID;
	(void)t4_write_l2e(hw, 0);
	mtx_unlock(&hw->lock);
	e->state = TH_L2_VALID;
	while ((w = STAILQ_FIRST(&e->waiting)) != NULL) {
		STAILQ_REMOVE_HEAD(&e->waiting, link);
		t4_wrq_tx(tom->sc, w->wr);
		free(w, M_TOEHOLD);
		th_l2_put(tom, e);
	}
	th_l2_put(tom, e);
}

/* The same without a neighbour: what waited is not sent. */
static void
th_l2_unresolved(struct th_tom *tom, struct th_l2e *e)
{
	struct th_l2wr *w;

	mtx_assert(&tom->l2_lock, MA_OWNED);
	e->state = TH_L2_FAILED;
	while ((w = STAILQ_FIRST(&e->waiting)) != NULL) {
		STAILQ_REMOVE_HEAD(&e->waiting, link);
		STAILQ_INSERT_TAIL(&tom->l2_unsent, w, link);
		taskqueue_enqueue(taskqueue_thread, &tom->l2_task);
		th_l2_put(tom, e);
	}
	th_l2_put(tom, e);
}

/* Ask the kernel for the neighbour.  l2_lock is not held: ARP may call back. */
static int
th_l2_ask(struct th_tom *tom, struct th_l2e *e)
{
	struct sockaddr_in sin;
	uint8_t mac[ETHER_ADDR_LEN];
	uint16_t vtag;
	int error;

	memset(&sin, 0, sizeof(sin));
	sin.sin_len = sizeof(sin);
	sin.sin_family = AF_INET;
	sin.sin_addr.s_addr = e->addr;
	vtag = 0xfff;
	error = toe_l2_resolve(&tom->tod, e->ifp, (struct sockaddr *)&sin, mac,
	    &vtag);
	if (error == EWOULDBLOCK)
		return (0);
	mtx_lock(&tom->l2_lock);
	if (tom->l2_stopped)
		e->state = TH_L2_FAILED;
	else {
		e->refs++;
		if (error == 0)
			th_l2_resolved(tom, e, mac, vtag);
		else
			th_l2_unresolved(tom, e);
	}
	mtx_unlock(&tom->l2_lock);
	return (error);
}

static struct th_l2e *
th_l2_find(struct th_tom *tom, struct ifnet *ifp, uint32_t addr)
{
	struct th_l2e *e;

	mtx_assert(&tom->l2_lock, MA_OWNED);
	LIST_FOREACH(e, th_l2_bucket(tom, addr), link)
		if (e->ifp == ifp && e->addr == addr)
			return (e);
	return (NULL);
}

static struct th_l2e *
th_l2_new(struct th_tom *tom, struct ifnet *ifp, uint32_t addr)
{
	struct l2t_data *d;
	struct l2t_entry *hw;
	struct vi_info *vi;
	struct th_l2e *e;

	mtx_assert(&tom->l2_lock, MA_OWNED);
	e = malloc(sizeof(*e), M_TOEHOLD, M_NOWAIT | M_ZERO);
	if (e == NULL)
		return (NULL);
	vi = TH_IF_SOFTC(ifp);
	d = tom->sc->l2t;
	rw_wlock(&d->lock);
	hw = t4_alloc_l2e(d);
	if (hw != NULL) {
		mtx_lock(&hw->lock);
		hw->state = L2T_STATE_RESOLVING;
		hw->addr[0] = addr;
		hw->ifp = ifp;
		hw->ipv6 = 0;
		TH_L2E_PORT(hw, vi);
		hw->vlan = 0xfff;
		hw->wrq = &tom->sc->sge.ctrlq[TH_CTRLQ];
		hw->iqid = tom->sc->sge.ofld_rxq[vi->first_ofld_rxq].iq.abs_id;
		atomic_store_rel_int((volatile u_int *)&hw->refcnt, 1);
		mtx_unlock(&hw->lock);
	}
	rw_wunlock(&d->lock);
	if (hw == NULL) {
		free(e, M_TOEHOLD);
		return (NULL);
	}
	e->hw = hw;
	e->ifp = ifp;
	e->addr = addr;
	e->state = TH_L2_RESOLVING;
	STAILQ_INIT(&e->waiting);
	LIST_INSERT_HEAD(th_l2_bucket(tom, addr), e, link);
	return (e);
}

struct th_l2e *
th_l2_get(struct th_tom *tom, void *ifp, uint32_t addr)
{
	struct th_l2e *e;
	bool ask;

	mtx_lock(&tom->l2_lock);
	e = th_l2_find(tom, ifp, addr);
	if (e == NULL) {
		e = th_l2_new(tom, ifp, addr);
		ask = true;
	} else {
		ask = e->state == TH_L2_FAILED;
		if (ask)
			e->state = TH_L2_RESOLVING;
	}
	if (e != NULL)
		e->refs++;
	mtx_unlock(&tom->l2_lock);
	if (e != NULL && ask)
		(void)th_l2_ask(tom, e);
	return (e);
}

/*
 * The adapter stops.  What waits for a neighbour is forgotten with the opens and
 * half-open connections that it was for; of what was refused before, they are
 * told first.  May sleep.
 */
void
th_l2_stop(struct th_tom *tom)
{
	struct th_l2wr *w;
	struct th_l2e *e, *next;
	u_int i;

	mtx_lock(&tom->l2_lock);
	tom->l2_stopped = true;
	mtx_unlock(&tom->l2_lock);
	taskqueue_drain(taskqueue_thread, &tom->l2_task);
	mtx_lock(&tom->l2_lock);
	for (i = 0; i < nitems(tom->l2); i++) {
		LIST_FOREACH_SAFE(e, &tom->l2[i], link, next) {
			/* Its next user asks anew. */
			e->state = TH_L2_FAILED;
			e->refs++;
			while ((w = STAILQ_FIRST(&e->waiting)) != NULL) {
				STAILQ_REMOVE_HEAD(&e->waiting, link);
				free_wrqe(w->wr);
				free(w, M_TOEHOLD);
				th_l2_put(tom, e);
			}
			th_l2_put(tom, e);
		}
	}
	mtx_unlock(&tom->l2_lock);
}

/* It works again, with an empty table of next hops. */
void
th_l2_restart(struct th_tom *tom)
{

	mtx_lock(&tom->l2_lock);
	tom->l2_stopped = false;
	mtx_unlock(&tom->l2_lock);
}

uint32_t
th_l2_idx(struct th_l2e *e)
{

	return (e->hw->idx);
}

void
th_l2_rele(struct th_tom *tom, struct th_l2e *e)
{

	mtx_lock(&tom->l2_lock);
	th_l2_put(tom, e);
	mtx_unlock(&tom->l2_lock);
}

int
th_l2_send(struct th_tom *tom, struct th_l2e *e, uint32_t ctrlq,
    const uint8_t *bytes, uint32_t len, uint64_t cookie)
{
	struct th_l2wr *w;
	struct wrqe *wr;
	int error;

	wr = alloc_wrqe(len, &tom->sc->sge.ctrlq[ctrlq]);
	if (wr == NULL)
		return (ENOMEM);
	memcpy(wrtod(wr), bytes, len);

	error = 0;
	mtx_lock(&tom->l2_lock);
	if (tom->l2_stopped)
		error = ENETDOWN;
	else switch (e->state) {
	case TH_L2_VALID:
		t4_wrq_tx(tom->sc, wr);
		break;
	case TH_L2_RESOLVING:
		w = malloc(sizeof(*w), M_TOEHOLD, M_NOWAIT | M_ZERO);
		if (w == NULL) {
			error = ENOMEM;
			break;
		}
		w->cookie = cookie;
		w->wr = wr;
		STAILQ_INSERT_TAIL(&e->waiting, w, link);
		e->refs++;
		break;
	case TH_L2_FAILED:
		error = EHOSTUNREACH;
		break;
	}
	mtx_unlock(&tom->l2_lock);
	if (error != 0)
		free_wrqe(wr);
	return (error);
}

/* tod_l2_update: the kernel knows the neighbour now, or gives up on it. */
void
th_l2_update(struct toedev *tod, struct ifnet *ifp, struct sockaddr *sa,
    uint8_t *mac, uint16_t vtag)
{
	struct th_l2e *e;
	struct th_tom *tom;

	if (sa->sa_family != AF_INET)
		return;
	tom = tod_th(tod);
	mtx_lock(&tom->l2_lock);
	e = th_l2_find(tom, ifp, ((struct sockaddr_in *)sa)->sin_addr.s_addr);
	if (e != NULL && !tom->l2_stopped) {
		e->refs++;
		if (mac != NULL)
			th_l2_resolved(tom, e, mac, vtag);
		else
			th_l2_unresolved(tom, e);
	}
	mtx_unlock(&tom->l2_lock);
}
