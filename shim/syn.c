/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Passive open: the kernel's questions about a SYN, and the syncache.
 */
#include "internal.h"

#include <net/route.h>
#include <net/if_vlan_var.h>
#include <netinet/ip.h>
#include <netinet/in_fib.h>
#include <netinet/tcp_syncache.h>
#if __FreeBSD_version >= 1300000
#include <net/route/nhop.h>
#endif

static struct vi_info *
th_syn_vi(struct adapter *sc, const struct th_syn *s)
{
	struct vi_info *vi;
	int v;

	if (s->port >= sc->params.nports)
		return (NULL);
	for_each_vi(sc->port[s->port], v, vi)
		if (vi->xact_addr_filt == (int)s->mac_idx)
			return (vi);
	return (NULL);
}

/* in_conninfo and tcphdr as tcp_input() would have them. */
static void
th_syn_protohdrs(const struct mbuf *m, uint32_t l3_off, uint32_t tcp_off,
    struct in_conninfo *inc, struct tcphdr *th)
{
	const struct ip *ip;

	ip = (const struct ip *)(mtod(m, const uint8_t *) + l3_off);
	memcpy(th, mtod(m, const uint8_t *) + tcp_off, sizeof(*th));
	memset(inc, 0, sizeof(*inc));
	inc->inc_faddr = ip->ip_src;
	inc->inc_laddr = ip->ip_dst;
	inc->inc_fport = th->th_sport;
	inc->inc_lport = th->th_dport;
	tcp_fields_to_host(th);
}

/* The neighbour towards `dst', if the way there leads through ifp. */
static bool
th_nexthop(struct ifnet *ifp, struct in_addr dst, uint32_t *gw)
{
#if __FreeBSD_version >= 1300000
	struct nhop_object *nh;

	nh = fib4_lookup(RT_DEFAULT_FIB, dst, 0, NHR_NONE, 0);
	if (nh == NULL || nh->nh_ifp != ifp)
		return (false);
	*gw = (nh->nh_flags & NHF_GATEWAY) != 0 ? nh->gw4_sa.sin_addr.s_addr :
	    dst.s_addr;
#else
	struct nhop4_basic nh;

	if (fib4_lookup_nh_basic(RT_DEFAULT_FIB, dst, 0, 0, &nh) != 0 ||
	    nh.nh_ifp != ifp)
		return (false);
	*gw = nh.nh_addr.s_addr;
#endif
	return (true);
}

int
th_syn_check(struct th_tom *tom, const struct th_syn *s, struct mbuf *m,
    struct vnet *vnet, struct th_vi *tv, struct th_l2e **l2e)
{
	struct in_conninfo inc;
	struct tcphdr th;
	struct vi_info *vi;
	struct ifnet *ifp;
	uint32_t gw;

	vi = th_syn_vi(tom->sc, s);
	if (vi == NULL)
		return (ENOENT);
	ifp = vi->ifp;
	m->m_pkthdr.rcvif = ifp;
	if (s->vlan != 0xfff && s->vlan != 0)
		return (EOPNOTSUPP);	/* VLANs are the host stack's */
	if (TH_IF_VNET(ifp) != vnet ||
	    (TH_IF_CAPENABLE(ifp) & IFCAP_TOE4) == 0)
		return (EOPNOTSUPP);
	th_syn_protohdrs(m, s->l3_off, s->tcp_off, &inc, &th);
	if (!in_ifhasaddr(ifp, inc.inc_laddr) ||
	    !th_nexthop(ifp, inc.inc_faddr, &gw))
		return (EOPNOTSUPP);
	if (toe_4tuple_check(&inc, &th, ifp) != 0)
		return (ENOENT);
	*l2e = th_l2_get(tom, ifp, gw);
	if (*l2e == NULL)
		return (EOPNOTSUPP);
	th_pick_vi(tom->sc, vi, tv);
	return (0);
}

void
th_syncache_add(struct th_tom *tom, const struct th_syn *s, struct mbuf *m,
    struct inpcb *listener, void *synqe)
{
	struct in_conninfo inc;
	struct tcphdr th;
	struct tcpopt to;
	uint8_t tos;

	th_syn_protohdrs(m, s->l3_off, s->tcp_off, &inc, &th);
	tos = ((const struct ip *)(mtod(m, uint8_t *) + s->l3_off))->ip_tos;
	memset(&to, 0, sizeof(to));
	if (s->mss != 0) {
		to.to_flags |= TOF_MSS;
		to.to_mss = s->mss;
	}
	if (s->wscale != 0xff) {
		to.to_flags |= TOF_SCALE;
		to.to_wscale = s->wscale;
	}
	if (s->tstamp)
		to.to_flags |= TOF_TS;
	if (s->sack)
		to.to_flags |= TOF_SACKPERM;
	TH_SYNCACHE_RELOCK(listener);
	TH_SYNCACHE_ADD(&inc, &to, &th, listener, &tom->tod, synqe, tos);
	(void)tos;
}

/* As if the peer had answered the SYN|ACK by a reset. */
void
th_syncache_forget(struct mbuf *syn, uint32_t l3_off, uint32_t tcp_off,
    uint32_t irs)
{
	struct in_conninfo inc;
	struct tcphdr th;

	th_syn_protohdrs(syn, l3_off, tcp_off, &inc, &th);
	TH_SET_FLAGS(&th, TH_RST);
	th.th_seq = irs + 1;
	TH_SYNCACHE_CHKRST(&inc, &th);
}

struct inpcb *
th_syncache_expand(struct th_tom *tom, struct mbuf *syn, uint32_t l3_off,
    uint32_t tcp_off, uint32_t iss, uint32_t irs, bool tstamp, uint32_t ts,
    struct inpcb *listener, void *synqe)
{
	struct in_conninfo inc;
	struct socket *so;
	struct inpcb *inp;
	struct tcphdr th;
	struct tcpopt to;

	/* The SYN, dressed up as the ACK of our SYN|ACK. */
	th_syn_protohdrs(syn, l3_off, tcp_off, &inc, &th);
	TH_SET_FLAGS(&th, TH_ACK);
	th.th_ack = iss + 1;
	th.th_seq = irs + 1;
	memset(&to, 0, sizeof(to));
	if (tstamp) {
		to.to_flags |= TOF_TS;
		to.to_tsecr = ts;
	}
	/* Unless it says 1, so may be the listener's still. */
	so = listener->inp_socket;
	if (so == NULL || toe_syncache_expand(&inc, &to, &th, &so) != 1 ||
	    so == NULL)
		return (NULL);
	inp = sotoinpcb(so);
	INP_WLOCK_ASSERT(inp);
	/* A SYN cookie: nobody asked us to offload on the way here. */
	if (th_inp_toep(inp) == NULL) {
		tcp_timer_activate(intotcpcb(inp), TT_KEEP, 0);
		toehold_synqe_offload(synqe, inp);
	}
	return (inp);
}

void
th_syn_to_host(struct th_tom *tom, uint32_t port, struct mbuf *m)
{
	struct ifnet *ifp;

	ifp = m->m_pkthdr.rcvif;
	if (ifp == NULL) {
		if (port >= tom->sc->params.nports) {
			m_freem(m);
			return;
		}
		ifp = tom->sc->port[port]->vi[0].ifp;
		m->m_pkthdr.rcvif = ifp;
	}
	/* The adapter has checked the sums. */
	m->m_pkthdr.csum_flags |= CSUM_IP_CHECKED | CSUM_IP_VALID |
	    CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
	m->m_pkthdr.csum_data = 0xffff;
	TH_IF_INPUT(ifp, m);
}
