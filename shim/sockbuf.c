/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Socket buffers and socket state.
 */
#include "internal.h"

#include <vm/vm.h>
#include <vm/pmap.h>

/* Room, in bytes and in what mbufs take. */
static long
th_sb_space(struct sockbuf *sb, u_int least)
{

	if (sb->sb_hiwat >= least)
		return (sbspace(sb));
	return (lmin((long)least - sbused(sb),
	    (long)ulmax(sb->sb_mbmax, 8 * least) - sb->sb_mbcnt));
}

void
th_sb(struct socket *so, uint32_t which, struct th_sockbuf *s)
{
	struct sockbuf *sb;
	u_int least;

	if (which == TH_SB_RCV) {
		sb = &so->so_rcv;
		least = TH_MIN_RCV;
	} else {
		sb = &so->so_snd;
		least = 0;
	}
	SOCKBUF_LOCK(sb);
	s->used = sbused(sb);
	s->avail = sbavail(sb);
	s->space = (int32_t)lmax(lmin(th_sb_space(sb, least), INT32_MAX),
	    INT32_MIN);
	s->hiwat = MAX(sb->sb_hiwat, least);
	s->lowat = sb->sb_lowat;
	s->shut = (sb->sb_state & (which == TH_SB_RCV ? SBS_CANTRCVMORE :
	    SBS_CANTSENDMORE)) != 0;
	s->aio = !TAILQ_EMPTY(&sb->sb_aiojobq) ||
	    (sb->sb_flags & SB_AIO_RUNNING) != 0;
	s->tls = TH_SB_TLS(so, sb);
	SOCKBUF_UNLOCK(sb);
}

void
th_rcv_append(struct socket *so, struct mbuf *m)
{

	SOCKBUF_LOCK(&so->so_rcv);
	sbappendstream_locked(&so->so_rcv, m, 0);
	sorwakeup_locked(so);		/* unlocks */
	SOCKBUF_UNLOCK_ASSERT(&so->so_rcv);
}

void
th_rcv_grow(struct socket *so)
{
	struct sockbuf *sb;
	u_long hiwat;

	sb = &so->so_rcv;
	SOCKBUF_LOCK(sb);
	if ((sb->sb_flags & SB_AUTOSIZE) != 0 && V_tcp_do_autorcvbuf &&
	    sb->sb_hiwat < (u_int)V_tcp_autorcvbuf_max) {
		hiwat = MIN(sb->sb_hiwat + 16384UL,
		    (u_long)V_tcp_autorcvbuf_max);
		if (!TH_SBRESERVE(so, SO_RCV, hiwat))
			sb->sb_flags &= ~SB_AUTOSIZE;
	}
	SOCKBUF_UNLOCK(sb);
}

void
th_rcv_cant_more(struct socket *so)
{

	socantrcvmore(so);
}

bool
th_rcv_generic(struct socket *so)
{
	struct sockbuf *sb;
	bool busy;

	sb = &so->so_rcv;
	SOCKBUF_LOCK(sb);
	busy = (sb->sb_flags & SB_AIO_RUNNING) != 0 ||
	    TAILQ_FIRST(&sb->sb_aiojobq) != NULL;
	SOCKBUF_UNLOCK(sb);
	return (busy);
}

bool
th_rcv_io_trylock(struct socket *so)
{

	return (TH_RCV_IO_TRYLOCK(so));
}

void
th_rcv_io_unlock(struct socket *so)
{

	TH_RCV_IO_UNLOCK(so);
}

bool
th_snd_autosize(struct socket *so)
{
	struct sockbuf *sb;
	u_long hiwat;
	bool grew;

	grew = false;
	sb = &so->so_snd;
	SOCKBUF_LOCK(sb);
	if ((sb->sb_flags & SB_AUTOSIZE) != 0 && V_tcp_do_autosndbuf &&
	    sb->sb_hiwat < (u_int)V_tcp_autosndbuf_max &&
	    sbused(sb) >= sb->sb_hiwat / 8 * 7) {
		hiwat = MIN(sb->sb_hiwat + (u_long)V_tcp_autosndbuf_inc,
		    (u_long)V_tcp_autosndbuf_max);
		if (TH_SBRESERVE(so, SO_SND, hiwat))
			grew = true;
		else
			sb->sb_flags &= ~SB_AUTOSIZE;
	}
	if (grew)
		sowwakeup_locked(so);	/* unlocks */
	else
		SOCKBUF_UNLOCK(sb);
	return (grew);
}

void
th_snd_drop(struct socket *so, uint32_t n)
{
	struct sockbuf *sb;

	sb = &so->so_snd;
	SOCKBUF_LOCK(sb);
	sbdrop_locked(sb, MIN(n, sbused(sb)));
	sowwakeup_locked(so);		/* unlocks */
}

void
th_snd_append(struct socket *so, struct mbuf *m)
{

	SOCKBUF_LOCK(&so->so_snd);
	sbappendstream_locked(&so->so_snd, m, 0);
	SOCKBUF_UNLOCK(&so->so_snd);
}

void
th_snd_flush(struct socket *so)
{

	sbflush(&so->so_snd);
}

struct mbuf *
th_snd_take(struct socket *so)
{
	struct sockbuf *sb;
	struct mbuf *m;

	sb = &so->so_snd;
	SOCKBUF_LOCK(sb);
	m = sbcut_locked(sb, sbused(sb));
	SOCKBUF_UNLOCK(sb);
	return (m);
}

bool
th_snd_io_trylock(struct socket *so)
{

	return (TH_SND_IO_TRYLOCK(so));
}

void
th_snd_io_unlock(struct socket *so)
{

	TH_SND_IO_UNLOCK(so);
}

int
th_so_take_error(struct socket *so)
{
	int error;

	error = so->so_error;
	if (error != 0)
		so->so_error = 0;
	return (error);
}

bool
th_so_nonblocking(struct socket *so)
{

	return ((so->so_state & SS_NBIO) != 0);
}

bool
th_so_no_ddp(struct socket *so)
{

	return ((TH_SO_OPTIONS(so) & SO_NO_DDP) != 0);
}

void
th_so_disconnected(struct socket *so)
{

	soisdisconnected(so);
}

/* ---- Mbufs on their way out ------------------------------------------------ */

/*
 * sb_sndptr is ours to use on an offloaded connection: the mbuf with the first
 * unsent byte, or one before it, and its offset in the buffer.  sbdrop() keeps
 * both right.
 */
struct mbuf *
th_snd_next(struct socket *so, uint32_t sent, uint32_t *off)
{
	struct sockbuf *sb;
	struct mbuf *m;
	uint32_t at;

	sb = &so->so_snd;
	SOCKBUF_LOCK(sb);
	if (sb->sb_sndptr != NULL && sb->sb_sndptroff <= sent) {
		m = sb->sb_sndptr;
		at = sb->sb_sndptroff;
	} else {
		m = sb->sb_mb;
		at = 0;
	}
	while (m != NULL && sent - at >= (uint32_t)m->m_len) {
		at += m->m_len;
		m = m->m_next;
	}
	if (m != NULL) {
		sb->sb_sndptr = m;
		sb->sb_sndptroff = at;
	}
	SOCKBUF_UNLOCK(sb);
	*off = sent - at;
	return (m);
}

void
th_snd_advance(struct socket *so, uint32_t sent, uint32_t n)
{
	uint32_t off;

	(void)th_snd_next(so, sent + n, &off);
}

struct mbuf *
th_mbuf_next(struct mbuf *m)
{

	return (m->m_next);
}

static bool
th_is_aiotx(const struct mbuf *m)
{

	return ((m->m_flags & M_EXT) != 0 &&
	    (m->m_ext.ext_flags & EXT_FLAG_VENDOR1) != 0 &&
	    m->m_ext.ext_free == th_aiotx_mfree);
}

void
th_mbuf(struct mbuf *m, struct th_mbuf *v)
{

	v->len = m->m_len;
	v->flags = 0;
	v->data = 0;
	if ((m->m_flags & M_NOTREADY) != 0)
		v->flags |= TH_M_NOTREADY;
	if (th_is_aiotx(m))
		v->flags |= TH_M_AIOTX | TH_M_PAGES;
#ifdef TH_HAVE_EXTPG
	if ((m->m_flags & M_EXTPG) != 0)
		v->flags |= TH_M_PAGES;
#endif
	if ((v->flags & TH_M_PAGES) == 0)
		v->data = (uint64_t)(uintptr_t)mtod(m, void *);
}

#ifdef TH_HAVE_EXTPG
/* Header, pages, trailer: where byte `off' of an unmapped mbuf lies. */
static uint64_t
th_extpg_run(struct mbuf *m, uint32_t off, uint32_t *len)
{
	uint32_t at, n, pgoff;
	int i;

	off += mtod(m, vm_offset_t);
	if (off < m->m_epg_hdrlen) {
		*len = m->m_epg_hdrlen - off;
		return (pmap_kextract((vm_offset_t)&m->m_epg_hdr[off]));
	}
	off -= m->m_epg_hdrlen;
	pgoff = m->m_epg_1st_off;
	at = 0;
	for (i = 0; i < m->m_epg_npgs; i++) {
		n = m_epg_pagelen(m, i, pgoff);
		if (off < at + n) {
			*len = at + n - off;
			return (m->m_epg_pa[i] + pgoff + (off - at));
		}
		at += n;
		pgoff = 0;
	}
	off -= at;
	*len = off < m->m_epg_trllen ? m->m_epg_trllen - off : 0;
	return (*len == 0 ? 0 :
	    pmap_kextract((vm_offset_t)&m->m_epg_trail[off]));
}
#endif

uint64_t
th_mbuf_run(struct mbuf *m, uint32_t off, uint32_t *len)
{
	vm_offset_t va;

#ifdef TH_HAVE_EXTPG
	if ((m->m_flags & M_EXTPG) != 0)
		return (th_extpg_run(m, off, len));
#else
	if (th_is_aiotx(m)) {
		struct th_pages *pg;
		uint32_t pos;

		pg = (struct th_pages *)m->m_ext.ext_buf;
		pos = (uint32_t)(uintptr_t)m->m_ext.ext_arg2 +
		    (uint32_t)mtod(m, vm_offset_t) + off;
		*len = PAGE_SIZE - (pos & PAGE_MASK);
		return (pg->pa[pos >> PAGE_SHIFT] + (pos & PAGE_MASK));
	}
#endif
	va = mtod(m, vm_offset_t) + off;
	*len = PAGE_SIZE - (va & PAGE_MASK);
	return (pmap_kextract(va));
}

void
th_mbuf_copy(struct mbuf *m, uint32_t off, uint32_t len, uint8_t *dst)
{

	m_copydata(m, off, len, (caddr_t)dst);
}

uint32_t
th_mbuf_len(struct mbuf *m)
{

	return (m_length(m, NULL));
}

void
th_mbuf_adj(struct mbuf *m, uint32_t n)
{

	m_adj(m, n);
}

void
th_mbuf_free(struct mbuf *m)
{

	m_freem(m);
}

void
th_mbuf_cat(struct mbuf *head, struct mbuf *tail)
{

	m_cat(head, tail);
}
