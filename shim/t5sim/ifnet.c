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
#include <sys/epoch.h>

#define TS_MTU_MAX	9600
#define TS_CAPS		(IFCAP_TOE4 | IFCAP_VLAN_MTU | IFCAP_JUMBO_MTU | \
			    IFCAP_LINKSTATE)

static void
ts_if_init(void *arg)
{
	struct vi_info *vi = arg;

	if_setdrvflagbits(vi->ifp, IFF_DRV_RUNNING, 0);
	if_link_state_change(vi->ifp, LINK_STATE_UP);
}

static void
ts_if_stop(struct vi_info *vi)
{

	if_setdrvflagbits(vi->ifp, 0, IFF_DRV_RUNNING);
}

/* SIOCSIFCAP, inside a synchronized operation. */
static int
ts_if_setcap(struct vi_info *vi, int want)
{
	int change, rc;

	change = want ^ if_getcapenable(vi->ifp);
	if ((change & IFCAP_TOE) != 0) {
		rc = ts_toe_capability(vi, (want & IFCAP_TOE) != 0);
		if (rc != 0)
			return (rc);
		if_togglecapenable(vi->ifp, change & IFCAP_TOE);
	}
	if ((change & IFCAP_VLAN_MTU) != 0)
		if_togglecapenable(vi->ifp, IFCAP_VLAN_MTU);
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
	case SIOCSIFCAP:
		rc = begin_synchronized_op(sc, vi, SLEEP_OK | INTR_OK, ts_if_op);
		if (rc != 0)
			return (rc);
		if (cmd == SIOCSIFCAP)
			rc = ts_if_setcap(vi, ifr->ifr_reqcap);
		else if ((if_getflags(ifp) & IFF_UP) == 0)
			ts_if_stop(vi);
		else if ((if_getdrvflags(ifp) & IFF_DRV_RUNNING) == 0)
			ts_if_init(vi);
		end_synchronized_op(sc, 0);
		return (rc);
	case SIOCADDMULTI:
	case SIOCDELMULTI:
		return (0);
	default:
		return (ether_ioctl(ifp, cmd, data));
	}
}

/* Any lock may be held. Owns the mbuf. */
static int
ts_if_transmit(if_t ifp, struct mbuf *m)
{
	struct vi_info *vi = if_getsoftc(ifp);
	struct ts_softc *ts;
	if_t peer;
	int len, rc;

	M_ASSERTPKTHDR(m);
	ts = __containerof(vi->pi->adapter, struct ts_softc, sc);
	peer = ts->vi[1 - vi->pi->port_id].ifp;
	len = m->m_pkthdr.len;
	BPF_MTAP(ifp, m);
	if (peer == NULL || (if_getdrvflags(ifp) & IFF_DRV_RUNNING) == 0 ||
	    (if_getdrvflags(peer) & IFF_DRV_RUNNING) == 0) {
		rc = ENETDOWN;
		goto drop;
	}
	/* What belongs to the sending stack stays behind. */
	m_clrprotoflags(m);
	m->m_pkthdr.csum_flags = 0;
	m->m_pkthdr.rcvif = peer;
	mtx_lock(&ts->pend_lock);
	rc = mbufq_enqueue(&ts->pend_frames, m);
	if (rc == 0)
		ts->n_frames++;
	mtx_unlock(&ts->pend_lock);
	if (rc != 0)
		goto drop;
	if_inc_counter(ifp, IFCOUNTER_OPACKETS, 1);
	if_inc_counter(ifp, IFCOUNTER_OBYTES, len);
	ts_engine_kick(ts);
	return (0);
drop:
	mtx_lock(&ts->pend_lock);
	ts->n_frame_drops++;
	mtx_unlock(&ts->pend_lock);
	if_inc_counter(ifp, IFCOUNTER_OERRORS, 1);
	m_freem(m);
	return (rc);
}

static void
ts_if_qflush(if_t ifp)
{
}

/* Engine thread, no lock held. */
void
ts_frame_input(struct ts_softc *ts, struct mbuf *m)
{
	struct epoch_tracker et;
	if_t ifp = m->m_pkthdr.rcvif;

	if_inc_counter(ifp, IFCOUNTER_IPACKETS, 1);
	if_inc_counter(ifp, IFCOUNTER_IBYTES, m->m_pkthdr.len);
	epoch_enter_preempt(net_epoch_preempt, &et);
	if_input(ifp, m);
	epoch_exit_preempt(net_epoch_preempt, &et);
}

int
ts_port_attach(struct ts_softc *ts, int i)
{
	struct vi_info *vi = &ts->vi[i];
	if_t ifp;

	ifp = if_alloc(IFT_ETHER);
	if (ifp == NULL)
		return (ENOMEM);
	if_setsoftc(ifp, vi);
	if_initname(ifp, "cxl", i);
	if_setflags(ifp, IFF_BROADCAST | IFF_SIMPLEX | IFF_MULTICAST);
	if_setinitfn(ifp, ts_if_init);
	if_setioctlfn(ifp, ts_if_ioctl);
	if_settransmitfn(ifp, ts_if_transmit);
	if_setqflushfn(ifp, ts_if_qflush);
	if_setcapabilities(ifp, TS_CAPS);
	if_setcapenable(ifp, TS_CAPS & ~IFCAP_TOE);
	if_setbaudrate(ifp, (uint64_t)ts->info.line_rate * 1000000);
	vi->ifp = ifp;
	ether_ifattach(ifp, vi->hw_addr);
	if_link_state_change(ifp, LINK_STATE_UP);
	return (0);
}

/*
 * Operations wait or fail from here on. The engine may still hold frames for the
 * interface: it is gone from the peer's sight first, then its frames are passed on, then
 * it is detached.
 */
void
ts_port_detach(struct ts_softc *ts, int i)
{
	struct vi_info *vi = &ts->vi[i];
	struct adapter *sc = &ts->sc;
	if_t ifp = vi->ifp;

	ADAPTER_LOCK(sc);
	vi->flags |= DOOMED;
	wakeup(&sc->flags);
	while (IS_BUSY(sc))
		mtx_sleep(&sc->flags, &sc->sc_lock, 0, "t5detach", 0);
	ADAPTER_UNLOCK(sc);
	ts_if_stop(vi);
	vi->ifp = NULL;
	/* A sender that saw it before is in the network stack's epoch. */
	epoch_wait_preempt(net_epoch_preempt);
	taskqueue_drain(ts->tq, &ts->run);
	ether_ifdetach(ifp);
	if_free(ifp);
}
