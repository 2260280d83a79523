/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The two Ethernet interfaces, cxl0 and cxl1, joined by a cable: a frame sent by one
 * enters at the other, carried by the engine thread because the sender may hold locks
 * that input needs.
 */
#include "softc.h"

#include <sys/sockio.h>
#include <net/if_media.h>
#include <net/if_types.h>
#include <net/bpf.h>
#include <net/vnet.h>
#include <sys/epoch.h>

#define TS_MTU_MAX	9600
#define TS_CAPS		(IFCAP_TOE4 | IFCAP_VLAN_MTU | IFCAP_JUMBO_MTU | \
			    IFCAP_LINKSTATE)

/* Never sleeps: the kernel sets flags with locks of its own held. */
static void
ts_if_run(struct vi_info *vi, if_t ifp, bool run)
{
	struct adapter *sc = vi->pi->adapter;

	ADAPTER_LOCK(sc);
	run = run && !TS_IS_DOOMED(vi);
	if_setdrvflagbits(ifp, run ? IFF_DRV_RUNNING : 0,
	    run ? 0 : IFF_DRV_RUNNING);
	ADAPTER_UNLOCK(sc);
	if (run)
		if_link_state_change(ifp, LINK_STATE_UP);
}

static void
ts_if_init(void *arg)
{
	struct vi_info *vi = arg;

	ts_if_run(vi, vi->ifp, true);
}

/* SIOCSIFCAP, inside a synchronized operation. */
static int
ts_if_setcap(struct vi_info *vi, if_t ifp, int want)
{
	int change, rc;

	change = want ^ if_getcapenable(ifp);
	if ((change & IFCAP_TOE) != 0) {
		rc = ts_toe_capability(vi, (want & IFCAP_TOE) != 0);
		if (rc != 0)
			return (rc);
		if_togglecapenable(ifp, change & IFCAP_TOE);
	}
	if ((change & IFCAP_VLAN_MTU) != 0)
		if_togglecapenable(ifp, IFCAP_VLAN_MTU);
	return (0);
}

static char ts_if_op[] = "t5ioctl";

static int
ts_if_ioctl(if_t ifp, u_long cmd, caddr_t data)
{
	struct vi_info *vi = if_getsoftc(ifp);
	struct adapter *sc = vi->pi->adapter;
	struct ifreq *ifr = (struct ifreq *)data;
	int rc;

	switch (cmd) {
	case SIOCSIFMTU:
		if (ifr->ifr_mtu < ETHERMIN || ifr->ifr_mtu > TS_MTU_MAX)
			return (EINVAL);
		if_setmtu(ifp, ifr->ifr_mtu);
		return (0);
	case SIOCSIFFLAGS:
		ts_if_run(vi, ifp, (if_getflags(ifp) & IFF_UP) != 0);
		return (0);
	case SIOCSIFCAP:
		rc = begin_synchronized_op(sc, vi, SLEEP_OK | INTR_OK, ts_if_op);
		if (rc != 0)
			return (rc);
		rc = ts_if_setcap(vi, ifp, ifr->ifr_reqcap);
		end_synchronized_op(sc, 0);
		return (rc);
	case SIOCADDMULTI:
	case SIOCDELMULTI:
		return (0);
	default:
		return (ts_media_ioctl(ifp, vi, cmd, ifr));
	}
}

/*
 * Queue the frame for the engine, to enter at the other port. The lock keeps that port's
 * interface from going away between the look at it and the queue. Owns the mbuf.
 */
static int
ts_if_cross(struct ts_softc *ts, if_t from, int to, struct mbuf *m)
{
	if_t peer;
	int rc;

	mtx_lock(&ts->pend_lock);
	peer = ts->enter[to];
	if ((if_getdrvflags(from) & IFF_DRV_RUNNING) == 0 || peer == NULL ||
	    (if_getdrvflags(peer) & IFF_DRV_RUNNING) == 0)
		rc = ENETDOWN;
	else {
		m->m_pkthdr.rcvif = peer;
		rc = mbufq_enqueue(&ts->pend_frames, m);
	}
	if (rc == 0)
		ts->n_frames++;
	else
		ts->n_frame_drops++;
	mtx_unlock(&ts->pend_lock);
	if (rc != 0)
		m_freem(m);
	return (rc);
}

/* Any mutex may be held. Owns the mbuf. */
static int
ts_if_transmit(if_t ifp, struct mbuf *m)
{
	struct vi_info *vi = if_getsoftc(ifp);
	struct ts_softc *ts = ts_of(vi->pi->adapter);
	int len, rc;

	M_ASSERTPKTHDR(m);
	len = m->m_pkthdr.len;
	BPF_MTAP(ifp, m);
	/* What belongs to the sending stack stays behind. */
	m_clrprotoflags(m);
	m_tag_delete_nonpersistent(m);
	m->m_pkthdr.csum_flags = 0;
	rc = ts_if_cross(ts, ifp, 1 - vi->pi->port_id, m);
	if (rc != 0) {
		if_inc_counter(ifp, IFCOUNTER_OERRORS, 1);
		return (rc);
	}
	if_inc_counter(ifp, IFCOUNTER_OPACKETS, 1);
	if_inc_counter(ifp, IFCOUNTER_OBYTES, len);
	ts_engine_kick(ts);
	return (0);
}

static void
ts_if_qflush(if_t ifp)
{
}

/* Engine thread, no lock held. The stack counts bytes by itself. */
void
ts_frame_input(struct ts_softc *ts, struct mbuf *m)
{
	struct epoch_tracker et;
	if_t ifp = m->m_pkthdr.rcvif;

	if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
	epoch_enter_preempt(net_epoch_preempt, &et);
	if_input(ifp, m);
	epoch_exit_preempt(net_epoch_preempt, &et);
}

/* Operations on this interface wait or fail from here on. May sleep. */
void
ts_vi_doom(struct adapter *sc, struct vi_info *vi)
{

	ADAPTER_LOCK(sc);
	TS_DOOM(vi);
	wakeup(&sc->flags);
	while (IS_BUSY(sc))
		mtx_sleep(&sc->flags, &sc->sc_lock, 0, "t5detach", 0);
	ADAPTER_UNLOCK(sc);
}

/* May sleep; curvnet is set. */
int
ts_port_attach(struct ts_softc *ts, int i)
{
	struct vi_info *vi = &ts->vi[i];
	if_t ifp;

	ifp = if_alloc(IFT_ETHER);
	if (ifp == NULL)
		return (ENOMEM);
	TS_UNDOOM(vi);
	if_setsoftc(ifp, vi);
	if_initname(ifp, "cxl", ts->unit * T5SIM_NPORTS + i);
	if_setflags(ifp, IFF_BROADCAST | IFF_SIMPLEX | IFF_MULTICAST);
	if_setinitfn(ifp, ts_if_init);
	if_setioctlfn(ifp, ts_if_ioctl);
	if_settransmitfn(ifp, ts_if_transmit);
	if_setqflushfn(ifp, ts_if_qflush);
	if_setcapabilities(ifp, TS_CAPS);
	if_setcapenable(ifp, TS_CAPS & ~IFCAP_TOE);
	if_setbaudrate(ifp, (uint64_t)ts->info.line_rate * 1000000);
	ts_media_init(ts, i);
	vi->ifp = ifp;
	ts_sysctl_port_attach(ts, i);
	ether_ifattach(ifp, vi->hw_addr);
	if_link_state_change(ifp, LINK_STATE_UP);
	mtx_lock(&ts->pend_lock);
	ts->enter[i] = ifp;
	mtx_unlock(&ts->pend_lock);
	return (0);
}

/* Nothing is queued any more for the interface of this port, and what is queued goes. */
static void
ts_port_close(struct ts_softc *ts, int i)
{
	struct mbufq keep, drop;
	struct mbuf *m;

	mbufq_init(&keep, INT_MAX);
	mbufq_init(&drop, INT_MAX);
	mtx_lock(&ts->pend_lock);
	ts->enter[i] = NULL;
	while ((m = mbufq_dequeue(&ts->pend_frames)) != NULL)
		(void)mbufq_enqueue(m->m_pkthdr.rcvif == ts->vi[i].ifp ?
		    &drop : &keep, m);
	mbufq_concat(&ts->pend_frames, &keep);
	ts->n_frame_drops += mbufq_len(&drop);
	mtx_unlock(&ts->pend_lock);
	mbufq_drain(&drop);
}

/*
 * The interface may be in any vnet. It is gone from its peer's sight first; then the engine
 * passes on what it holds; then the stack lets go of it. It is freed when those who found
 * it in an epoch are through. May sleep.
 */
void
ts_port_detach(struct ts_softc *ts, int i)
{
	struct vi_info *vi = &ts->vi[i];
	if_t ifp = vi->ifp;

	if (ifp == NULL)
		return;
	ts_vi_doom(&ts->sc, vi);
	ts_if_run(vi, ifp, false);
	ts_port_close(ts, i);
	taskqueue_drain(ts->tq, &ts->run);
	CURVNET_SET(TS_IF_VNET(ifp));
	ether_ifdetach(ifp);
	CURVNET_RESTORE();
	epoch_wait_preempt(net_epoch_preempt);
	vi->ifp = NULL;
	ts_sysctl_port_detach(ts, i);
	ts_media_fini(ts, i);
	if_free(ifp);
}
