/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * inpcb and tcpcb: locks, references, state, and the tcpcb as the kernel's
 * other parts read it.
 */
#include "internal.h"

#include <netinet/cc/cc.h>

struct vnet *
th_vnet_enter(struct vnet *vnet)
{
	struct vnet *before;

	before = curthread->td_vnet;
	curthread->td_vnet = vnet;
	return (before);
}

void
th_vnet_leave(struct vnet *before)
{

	curthread->td_vnet = before;
}

void
th_inp_wlock(struct inpcb *inp)
{

	INP_WLOCK(inp);
}

void
th_inp_wunlock(struct inpcb *inp)
{

	INP_WUNLOCK(inp);
}

void
th_inp_ref(struct inpcb *inp)
{

	INP_WLOCK_ASSERT(inp);
	in_pcbref(inp);
}

bool
th_inp_rele(struct inpcb *inp)
{

	INP_WLOCK_ASSERT(inp);
	return (in_pcbrele_wlocked(inp));
}

bool
th_inp_dropped(struct inpcb *inp)
{

	return ((inp->inp_flags & INP_DROPPED) != 0);
}

struct socket *
th_inp_socket(struct inpcb *inp)
{

	return (inp->inp_socket);
}

struct vnet *
th_inp_vnet(struct inpcb *inp)
{

	return (inp->inp_vnet);
}

void
th_inp_tuple(struct inpcb *inp, struct th_tuple *t)
{

	t->laddr = inp->inp_laddr.s_addr;
	t->faddr = inp->inp_faddr.s_addr;
	t->lport = inp->inp_lport;
	t->fport = inp->inp_fport;
}

void
th_inp_options(struct inpcb *inp, struct th_options *o)
{
	struct socket *so;
	struct tcpcb *tp;
	const char *cc;

	INP_LOCK_ASSERT(inp);
	so = inp->inp_socket;
	tp = intotcpcb(inp);
	memset(o, 0, sizeof(*o));
	o->sb_max = sb_max;
	o->nodelay = (tp->t_flags & TF_NODELAY) != 0;
	o->keepalive = (TH_SO_OPTIONS(so) & SO_KEEPALIVE) != 0 ||
	    TH_ALWAYS_KEEPALIVE;
	o->ecn = V_tcp_do_ecn == 1;
	o->iss = tp->iss;
	for (cc = TH_CC_ALGO(tp)->name; *cc != '\0' &&
	    o->cc_len < sizeof(o->cc_name); cc++)
		o->cc_name[o->cc_len++] = *cc;
	if (SOLISTENING(so)) {
		o->tstamp = o->wscale = V_tcp_do_rfc1323 != 0;
		o->sack = V_tcp_do_sack != 0;
		o->rcv_space = so->sol_sbrcv_hiwat;
		o->snd_hiwat = so->sol_sbsnd_hiwat;
		o->snd_autosize = (so->sol_sbsnd_flags & SB_AUTOSIZE) != 0 &&
		    V_tcp_do_autosndbuf;
		return;
	}
	o->mss = tcp_mssopt(&inp->inp_inc);
	o->tstamp = (tp->t_flags & TF_REQ_TSTMP) != 0;
	o->wscale = (tp->t_flags & TF_REQ_SCALE) != 0;
	o->sack = (tp->t_flags & TF_SACK_PERMIT) != 0;
	SOCKBUF_LOCK(&so->so_rcv);
	o->rcv_space = (uint32_t)lmax(sbspace(&so->so_rcv), 0);
	SOCKBUF_UNLOCK(&so->so_rcv);
	SOCKBUF_LOCK(&so->so_snd);
	o->snd_hiwat = so->so_snd.sb_hiwat;
	o->snd_autosize = (so->so_snd.sb_flags & SB_AUTOSIZE) != 0 &&
	    V_tcp_do_autosndbuf;
	SOCKBUF_UNLOCK(&so->so_snd);
}

void
th_inp_set_rcv_scale(struct inpcb *inp, uint8_t scale)
{

	intotcpcb(inp)->request_r_scale = scale;
}

void
th_make_established(struct inpcb *inp, const struct th_established *e)
{
	struct tcpcb *tp;

	INP_WLOCK_ASSERT(inp);
	tp = intotcpcb(inp);
	tcp_state_change(tp, TCPS_ESTABLISHED);
	tp->t_starttime = ticks;

	tp->irs = e->irs;
	tcp_rcvseqinit(tp);
	tp->rcv_wnd = e->rcv_wnd;
	tp->rcv_adv += e->rcv_wnd;
	tp->last_ack_sent = tp->rcv_nxt;

	tp->iss = e->iss;
	tcp_sendseqinit(tp);
	tp->snd_una = e->iss + 1;
	tp->snd_nxt = e->iss + 1;
	tp->snd_max = e->iss + 1;
	tp->snd_wnd = e->snd_wnd;

	tp->t_maxseg = e->mss;
	tp->t_flags &= ~(TF_RCVD_TSTMP | TF_SACK_PERMIT | TF_RCVD_SCALE);
	if (e->tstamp_ok) {
		tp->t_flags |= TF_RCVD_TSTMP;
		tp->ts_recent = 0;
		tp->ts_recent_age = tcp_ts_getticks();
	}
	if (e->sack_ok)
		tp->t_flags |= TF_SACK_PERMIT;
	if (e->wscale_ok) {
		tp->t_flags |= TF_RCVD_SCALE;
		tp->rcv_scale = e->rcv_wscale;
		tp->snd_scale = e->snd_wscale;
	}
	soisconnected(inp->inp_socket);
}

void
th_connect_failed(struct th_tom *tom, struct inpcb *inp, int error)
{

	toe_connect_failed(&tom->tod, inp, error);
}

void
th_tcp_publish(struct inpcb *inp, uint32_t rcv_nxt, uint32_t rcv_wnd,
    uint32_t snd_una, uint32_t snd_nxt)
{
	struct tcpcb *tp;

	tp = intotcpcb(inp);
	if (rcv_nxt != tp->rcv_nxt)
		tp->t_rcvtime = ticks;
	tp->rcv_nxt = rcv_nxt;
	tp->rcv_wnd = rcv_wnd;
	tp->snd_una = snd_una;
	tp->snd_nxt = snd_nxt;
	tp->snd_max = snd_nxt;
}

uint32_t
th_tcp_state(struct inpcb *inp)
{

	return (intotcpcb(inp)->t_state);
}

bool
th_tcp_more_to_come(struct inpcb *inp)
{

	return ((intotcpcb(inp)->t_flags & TF_MORETOCOME) != 0);
}

void
th_tcp_set_state(struct inpcb *inp, uint32_t state)
{
	struct tcpcb *tp;

	tp = intotcpcb(inp);
	if (state == TCPS_ESTABLISHED)
		tp->t_starttime = ticks;
	tcp_state_change(tp, state);
}

/*
 * The kernel's TIME_WAIT is its own business: from 14 on it does not call
 * tod_pcb_detach(), and before that it throws the tcpcb away; either way our
 * hooks must be gone first.
 */
void
th_tcp_twstart(struct inpcb *inp)
{
	struct tcpcb *tp;

	tp = intotcpcb(inp);
	if ((tp->t_flags & TF_TOE) != 0)
		tp->tod->tod_pcb_detach(tp->tod, tp);
	tcp_twstart(tp);
	INP_WLOCK(inp);
}

void
th_tcp_close(struct inpcb *inp)
{

	if (tcp_close(intotcpcb(inp)) == NULL)
		INP_WLOCK(inp);
}

void
th_tcp_drop(struct inpcb *inp, int error)
{

	if (tcp_drop(intotcpcb(inp), error) == NULL)
		INP_WLOCK(inp);
}
