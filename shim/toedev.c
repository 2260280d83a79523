/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The kernel's hooks for offloaded TCP: toedev methods, and the protosw that
 * brings aio requests to us.
 */
#include "internal.h"

#include <sys/domain.h>
#include <net/route.h>
#include <netinet/ip.h>
#if __FreeBSD_version >= 1300000
#include <net/route/nhop.h>
#endif

/*
 * TCP's protosws with our hooks for aio and shutdown(2), and the kernel's own:
 * one for the sockets of each domain.  Those of AF_INET6 may have an IPv4
 * connection, which their programs see as one of mapped addresses.
 */
static struct th_proto {
	int domain;
	struct protosw *kernel;
	struct protosw ours;
#if __FreeBSD_version < 1400000
	struct pr_usrreqs usrreqs;
#endif
} th_protos[] = {
#ifdef INET
	{ .domain = PF_INET },
#endif
#ifdef INET6
	{ .domain = PF_INET6 },
#endif
};

/* That of a socket, whichever of the two it has; NULL: of another driver. */
static struct th_proto *
th_proto_of(const struct socket *so)
{
	u_int i;

	for (i = 0; i < nitems(th_protos); i++)
		if (so->so_proto == th_protos[i].kernel ||
		    so->so_proto == &th_protos[i].ours)
			return (&th_protos[i]);
	return (NULL);
}

/* Reading was shut down: no aio_read waits any longer. */
static void
th_rcv_shut(struct socket *so)
{
	struct inpcb *inp;
	void *toep;

	inp = sotoinpcb(so);
	if (inp == NULL)
		return;
	INP_WLOCK(inp);
	toep = th_inp_toep(inp);
	if (toep != NULL)
		toehold_rcvd(toep, inp);
	INP_WUNLOCK(inp);
}

#if __FreeBSD_version >= 1500000
static int
th_usr_shutdown(struct socket *so, enum shutdown_how how)
{
	struct th_proto *p;
	int error;

	p = th_proto_of(so);
	error = p == NULL ? EOPNOTSUPP : p->kernel->pr_shutdown(so, how);
	if (how != SHUT_WR)
		th_rcv_shut(so);
	return (error);
}
#else
/* soshutdown() comes here before it flushes so_rcv; TCP has no such method. */
static int
th_usr_flush(struct socket *so, int how)
{

	if (how != SHUT_WR) {
		socantrcvmore(so);
		th_rcv_shut(so);
	}
	return (0);
}
#endif

#ifdef TH_HAVE_KTLS
/*
 * A TLS session may have begun: what was claimed before must not pass it by.
 * It is one of software.  One of an interface needs the route in the inpcb,
 * which only ip_output() puts there, and a failure to begin one by
 * tod_alloc_tls_session is what toecore's default says.
 */
static int
th_ctloutput(struct socket *so, struct sockopt *sopt)
{
	struct inpcb *inp;
	struct th_proto *p;
	void *toep;
	int error;

	p = th_proto_of(so);
	if (p == NULL)
		return (ENOPROTOOPT);
	error = p->kernel->pr_ctloutput(so, sopt);
	if (error != 0 || sopt->sopt_dir != SOPT_SET ||
	    sopt->sopt_level != IPPROTO_TCP ||
	    (sopt->sopt_name != TCP_TXTLS_ENABLE &&
	    sopt->sopt_name != TCP_RXTLS_ENABLE))
		return (error);
	inp = sotoinpcb(so);
	INP_WLOCK(inp);
	toep = th_inp_toep(inp);
	if (toep != NULL)
		toehold_tls(toep, inp);
	INP_WUNLOCK(inp);
	return (0);
}
#endif

int
th_protosw_init(void)
{
	struct th_proto *p;
	u_int i;

	for (i = 0; i < nitems(th_protos); i++) {
		p = &th_protos[i];
		p->kernel = TH_FIND_TCP(p->domain);
		if (p->kernel == NULL)
			return (ENOPROTOOPT);
		bcopy(p->kernel, &p->ours, sizeof(p->ours));
#ifdef TH_HAVE_KTLS
		p->ours.pr_ctloutput = th_ctloutput;
#endif
#if __FreeBSD_version >= 1400000
		p->ours.pr_aio_queue = th_aio_queue;
#if __FreeBSD_version >= 1500000
		p->ours.pr_shutdown = th_usr_shutdown;
#else
		p->ours.pr_flush = th_usr_flush;
#endif
#else
		bcopy(p->kernel->pr_usrreqs, &p->usrreqs, sizeof(p->usrreqs));
		p->usrreqs.pru_aio_queue = th_aio_queue;
		p->usrreqs.pru_flush = th_usr_flush;
		p->ours.pr_usrreqs = &p->usrreqs;
#endif
	}
	return (0);
}

/* ---- Attaching a connection --------------------------------------------- */

static void
th_sb_nocoalesce(struct socket *so, bool on)
{
	struct th_proto *p;

	SOCKBUF_LOCK(&so->so_snd);
	if (on)
		so->so_snd.sb_flags |= SB_NOCOALESCE;
	else
		so->so_snd.sb_flags &= ~SB_NOCOALESCE;
	SOCKBUF_UNLOCK(&so->so_snd);
	SOCKBUF_LOCK(&so->so_rcv);
	if (on)
		so->so_rcv.sb_flags |= SB_NOCOALESCE;
	else
		so->so_rcv.sb_flags &= ~SB_NOCOALESCE;
	p = th_proto_of(so);
	if (p != NULL)
		so->so_proto = on ? &p->ours : p->kernel;
	SOCKBUF_UNLOCK(&so->so_rcv);
}

void
th_offload_socket(struct th_tom *tom, struct inpcb *inp, void *toep)
{
	struct tcpcb *tp;

	INP_WLOCK_ASSERT(inp);
	tp = intotcpcb(inp);
	th_sb_nocoalesce(inp->inp_socket, true);
	tp->tod = &tom->tod;
	tp->t_toe = toep;
	tp->t_flags |= TF_TOE;
}

void
th_unoffload_socket(struct inpcb *inp)
{
	struct tcpcb *tp;

	INP_WLOCK_ASSERT(inp);
	tp = intotcpcb(inp);
	if (inp->inp_socket != NULL)
		th_sb_nocoalesce(inp->inp_socket, false);
	tp->t_toe = NULL;
	tp->t_flags &= ~TF_TOE;
	tp->tod = NULL;
}

void *
th_inp_toep(struct inpcb *inp)
{
	struct th_proto *p;
	struct socket *so;
	struct tcpcb *tp;

	INP_LOCK_ASSERT(inp);
#if __FreeBSD_version < 1400000
	/* A tcptw may stand where the tcpcb was. */
	if ((inp->inp_flags & INP_TIMEWAIT) != 0)
		return (NULL);
#endif
	tp = intotcpcb(inp);
	if (tp == NULL || (tp->t_flags & TF_TOE) == 0 || tp->t_toe == NULL)
		return (NULL);
	so = inp->inp_socket;
	p = so == NULL ? NULL : th_proto_of(so);
	if (p == NULL || so->so_proto != &p->ours)
		return (NULL);		/* another driver's */
	return (tp->t_toe);
}

/* ---- toedev methods ------------------------------------------------------- */

static void
th_tod_rcvd(struct toedev *tod, struct tcpcb *tp)
{

	toehold_rcvd(tp->t_toe, TH_TP2INP(tp));
}

static int
th_tod_output(struct toedev *tod, struct tcpcb *tp)
{

	return (toehold_output(tp->t_toe, TH_TP2INP(tp)));
}

static int
th_tod_send_fin(struct toedev *tod, struct tcpcb *tp)
{

	return (toehold_send_fin(tp->t_toe, TH_TP2INP(tp)));
}

static int
th_tod_send_rst(struct toedev *tod, struct tcpcb *tp)
{

	return (toehold_send_rst(tp->t_toe, TH_TP2INP(tp)));
}

static void
th_tod_pcb_detach(struct toedev *tod, struct tcpcb *tp)
{

	toehold_pcb_detach(tp->t_toe, TH_TP2INP(tp));
}

static void
th_tod_ctloutput(struct toedev *tod, struct tcpcb *tp, int dir, int name)
{

	if (dir == SOPT_SET && name == TCP_NODELAY)
		toehold_nodelay(tp->t_toe, TH_TP2INP(tp),
		    (tp->t_flags & TF_NODELAY) != 0);
}

/* The interface's VI, and a pick of its queues. */
void
th_pick_vi(struct adapter *sc, struct vi_info *vi, struct th_vi *tv)
{
	u_int rxq;

	memset(tv, 0, sizeof(*tv));
	tv->ifp = vi->ifp;
	tv->port = vi->pi->port_id;
	tv->hw_port = TH_PORT_HW(vi->pi);
	tv->tx_chan = vi->pi->tx_chan;
	tv->smac_sel = vi->smt_idx;
	tv->txq = vi->first_ofld_txq + arc4random() % vi->nofldtxq;
	rxq = vi->first_ofld_rxq + arc4random() % vi->nofldrxq;
	tv->rxq_abs = sc->sge.ofld_rxq[rxq].iq.abs_id;
	tv->tx_modq = TH_TX_MODQ(&sc->params.tp, vi->pi->tx_chan);
	/* FT_VNID_ID: valid in bit 16, PF from bit 7, VF from bit 0. */
	tv->vnic = (uint32_t)vi->vfvld << 16 | sc->pf << 7 | vi->vin;
	/* By default only a T5 with more than two 10 Gb/s ports' worth. */
	if (sc->tt.tx_align >= 0)
		tv->tx_align = sc->tt.tx_align > 0;
	else
		tv->tx_align = is_t5(sc) && (port_top_speed(vi->pi) > 10 ||
		    sc->params.nports > 2);
}

#if __FreeBSD_version >= 1300000
#define TH_ROUTE	struct nhop_object
#define TH_ROUTE_IFP(r)	((r)->nh_ifp)
#define TH_ROUTE_GW(r)	\
	(((r)->nh_flags & NHF_GATEWAY) != 0 ? &(r)->gw_sa : NULL)
#else
#define TH_ROUTE	struct rtentry
#define TH_ROUTE_IFP(r)	((r)->rt_ifp)
#define TH_ROUTE_GW(r)	\
	(((r)->rt_flags & RTF_GATEWAY) != 0 ? (r)->rt_gateway : NULL)
#endif

static int
th_tod_connect(struct toedev *tod, struct socket *so, TH_ROUTE *rt,
    struct sockaddr *nam)
{
	struct th_tom *tom;
	struct sockaddr *gw;
	struct inpcb *inp;
	struct ifnet *ifp;
	struct th_vi vi;

	tom = tod_th(tod);
	inp = sotoinpcb(so);
	INP_WLOCK_ASSERT(inp);
	if (nam->sa_family != AF_INET)
		return (EAFNOSUPPORT);	/* the host stack connects */
	ifp = TH_ROUTE_IFP(rt);
	if (TH_IF_TYPE(ifp) != IFT_ETHER || TOEDEV(ifp) != tod)
		return (EOPNOTSUPP);
	if (TH_SB_TLS(so, &so->so_snd) || TH_SB_TLS(so, &so->so_rcv))
		return (EOPNOTSUPP);
	if (tom->sc->tt.cop_managed_offloading)
		return (EPERM);		/* offload policies are not supported */
	gw = TH_ROUTE_GW(rt);
	if (gw == NULL)
		gw = nam;
	if (gw->sa_family != AF_INET)
		return (EAFNOSUPPORT);
	th_pick_vi(tom->sc, TH_IF_SOFTC(ifp), &vi);
	return (toehold_connect(tom->rs, inp, &vi,
	    ((struct sockaddr_in *)gw)->sin_addr.s_addr));
}

static int
th_tod_listen_start(struct toedev *tod, struct tcpcb *tp)
{
	struct th_tom *tom;
	struct adapter *sc;
	struct inpcb *inp;
	struct vi_info *vi;
	struct th_vi tv;
	int i, v;

	tom = tod_th(tod);
	sc = tom->sc;
	inp = TH_TP2INP(tp);
	INP_WLOCK_ASSERT(inp);
	if ((inp->inp_vflag & INP_IPV4) == 0 ||
	    IN_LOOPBACK(ntohl(inp->inp_laddr.s_addr)) ||
	    sc->tt.cop_managed_offloading)
		return (0);
	for_each_port(sc, i)
		for_each_vi(sc->port[i], v, vi)
			if ((vi->flags & VI_INIT_DONE) != 0 &&
			    (TH_IF_CAPENABLE(vi->ifp) & IFCAP_TOE4) != 0) {
				th_pick_vi(sc, vi, &tv);
				(void)toehold_listen_start(tom->rs, inp, &tv);
				return (0);
			}
	return (0);
}

static int
th_tod_listen_stop(struct toedev *tod, struct tcpcb *tp)
{

	return (toehold_listen_stop(tod_th(tod)->rs, TH_TP2INP(tp)));
}

static void
th_tod_syncache_added(struct toedev *tod, void *synqe)
{

	toehold_synqe_added(synqe);
}

static void
th_tod_syncache_removed(struct toedev *tod, void *synqe)
{

	toehold_synqe_removed(synqe);
}

/* The kernel's SYN|ACK: what we need of it are the numbers it chose. */
static int
th_tod_syncache_respond(struct toedev *tod, void *synqe, struct mbuf *m)
{
	struct tcpopt to;
	struct tcphdr *th;
	struct ip *ip;
	int error;

	ip = mtod(m, struct ip *);
	th = (struct tcphdr *)(ip + 1);
	memset(&to, 0, sizeof(to));
	tcp_dooptions(&to, (u_char *)(th + 1),
	    (th->th_off << 2) - sizeof(*th), TO_SYN);
	error = toehold_synqe_respond(synqe, ntohl(th->th_seq),
	    ntohl(th->th_ack) - 1, to.to_tsval);
	m_freem(m);
	return (error);
}

static void
th_tod_offload_socket(struct toedev *tod, void *synqe, struct socket *so)
{
#if __FreeBSD_version < 1400000
	struct socket *head;

	/*
	 * tcp_attach() turns autosizing on again, though SO_RCVBUF was set on
	 * the listener, whose inpcb is locked.
	 */
	head = so->so_listen;
	if (head != NULL && (head->sol_sbrcv_flags & SB_AUTOSIZE) == 0) {
		SOCKBUF_LOCK(&so->so_rcv);
		so->so_rcv.sb_flags &= ~SB_AUTOSIZE;
		SOCKBUF_UNLOCK(&so->so_rcv);
	}
#endif
	toehold_synqe_offload(synqe, sotoinpcb(so));
}

void
th_toedev_init(struct th_tom *tom)
{
	struct toedev *tod;

	tod = &tom->tod;
	init_toedev(tod);
	tod->tod_softc = tom->sc;
	tod->tod_connect = th_tod_connect;
	tod->tod_listen_start = th_tod_listen_start;
	tod->tod_listen_stop = th_tod_listen_stop;
	tod->tod_rcvd = th_tod_rcvd;
	tod->tod_output = th_tod_output;
	tod->tod_send_rst = th_tod_send_rst;
	tod->tod_send_fin = th_tod_send_fin;
	tod->tod_pcb_detach = th_tod_pcb_detach;
	tod->tod_l2_update = th_l2_update;
	tod->tod_syncache_added = th_tod_syncache_added;
	tod->tod_syncache_removed = th_tod_syncache_removed;
	tod->tod_syncache_respond = th_tod_syncache_respond;
	tod->tod_offload_socket = th_tod_offload_socket;
	tod->tod_ctloutput = th_tod_ctloutput;
}
