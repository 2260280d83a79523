/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Where FreeBSD 12, 14 and 15 differ, and nothing else.  One code path per
 * difference: the shim's other files use the TH_ names.
 */
#ifndef TOEHOLD_COMPAT_H
#define TOEHOLD_COMPAT_H

#include <sys/param.h>

/* 14: if_t is opaque, the tcpcb holds the inpcb, protosw is the usrreq. */
#if __FreeBSD_version >= 1400000
#define TH_TP2INP(tp)		tptoinpcb(tp)
#define TH_IF_SOFTC(ifp)	if_getsoftc(ifp)
#define TH_IF_TYPE(ifp)		if_gettype(ifp)
#define TH_IF_CAPENABLE(ifp)	if_getcapenable(ifp)
#define TH_IF_CAPENABLE_ON(ifp, c)	if_setcapenablebit((ifp), (c), 0)
#define TH_IF_CAPENABLE_OFF(ifp, c)	if_setcapenablebit((ifp), 0, (c))
#define TH_IF_VNET(ifp)		if_getvnet(ifp)
#define TH_IF_INPUT(ifp, m)	if_input((ifp), (m))
#define TH_SO_OPTIONS(so)	((so)->so_options)
#define TH_CC_ALGO(tp)		((tp)->t_cc)
#define TH_FIND_TCP(pf)	pffindproto((pf), SOCK_STREAM, IPPROTO_TCP)
#else
#define TH_TP2INP(tp)		((tp)->t_inpcb)
#define TH_IF_SOFTC(ifp)	((ifp)->if_softc)
#define TH_IF_TYPE(ifp)		((ifp)->if_type)
#define TH_IF_CAPENABLE(ifp)	((ifp)->if_capenable)
#define TH_IF_CAPENABLE_ON(ifp, c)	((ifp)->if_capenable |= (c))
#define TH_IF_CAPENABLE_OFF(ifp, c)	((ifp)->if_capenable &= ~(c))
#define TH_IF_VNET(ifp)		((ifp)->if_vnet)
#define TH_IF_INPUT(ifp, m)	((ifp)->if_input((ifp), (m)))
#define TH_SO_OPTIONS(so)	so_options_get(so)
#define TH_CC_ALGO(tp)		CC_ALGO(tp)
#define TH_FIND_TCP(pf)	pffindproto((pf), IPPROTO_TCP, SOCK_STREAM)
#ifndef SETTOEDEV
#define SETTOEDEV(ifp, tod)	(TOEDEV(ifp) = (tod))
#endif
#endif

/* 13: NET_EPOCH_ENTER takes a tracker. */
#if __FreeBSD_version >= 1300000
#define TH_EPOCH_ENTER(et)	NET_EPOCH_ENTER(et)
#define TH_EPOCH_EXIT(et)	NET_EPOCH_EXIT(et)
#else
#define TH_EPOCH_ENTER(et)	NET_EPOCH_ENTER_ET(et)
#define TH_EPOCH_EXIT(et)	NET_EPOCH_EXIT_ET(et)
#endif

/* 13: unmapped mbufs (M_EXTPG); 15: mb_alloc_ext_pgs() takes flags. */
#if __FreeBSD_version >= 1300000
#define TH_HAVE_EXTPG
#if __FreeBSD_version >= 1500000
#define TH_MB_ALLOC_EXT_PGS(how, fn)	mb_alloc_ext_pgs((how), (fn), M_RDONLY)
#else
#define TH_MB_ALLOC_EXT_PGS(how, fn)	mb_alloc_ext_pgs((how), (fn))
#endif
#endif

/* 13: TLS sessions of the kernel's between a program and a socket buffer. */
#ifdef SB_TLS_RX
#define TH_HAVE_KTLS
#define TH_SB_TLS(so, sb)	((sb) == &(so)->so_rcv ?		\
	((sb)->sb_flags & SB_TLS_RX) != 0 : (sb)->sb_tls_info != NULL)
#else
#define TH_SB_TLS(so, sb)	false
#endif

/* 13: vm_fault_quick_hold_pages() wires; before, it holds. */
#if __FreeBSD_version >= 1300000
#define TH_QUICK_HOLD_WIRES
#endif

/* 13: vm_page_all_valid() reads a volatile field. */
#if __FreeBSD_version >= 1300000
#define TH_PAGE_VALID(m)	vm_page_all_valid(m)
#else
#define TH_PAGE_VALID(m)	((m)->valid == VM_PAGE_BITS_ALL)
#endif

/* tmpfs: objects of a swap-backed file.  Until 13 a flag of their own; then a pager of its own. */
#if __FreeBSD_version < 1300000
#define TH_OBJ_TMPFS(o)	(((o)->flags & OBJ_TMPFS_NODE) != 0)
#else
#define TH_OBJ_TMPFS(o)	((o)->type != OBJT_SWAP &&			\
    ((o)->flags & (OBJ_SWAP | OBJ_PAGERPRIV1)) == (OBJ_SWAP | OBJ_PAGERPRIV1))
#endif

/* 13: a queue of offloaded connections has more than work requests. */
#if __FreeBSD_version >= 1300000
#define TH_OFLD_TXQ(sc, i)	(&(sc)->sge.ofld_txq[i].wrq)
#else
#define TH_OFLD_TXQ(sc, i)	(&(sc)->sge.ofld_txq[i])
#endif

/* 13: vmspaces are counted by refcount(9). */
#if __FreeBSD_version >= 1300000
#define TH_VMSPACE_REF(vm)	refcount_acquire(&(vm)->vm_refcnt)
#else
#define TH_VMSPACE_REF(vm)	\
	atomic_add_int((volatile u_int *)&(vm)->vm_refcnt, 1)
#endif

/* 13.1: the I/O locks belong to the socket; before, to the buffer. */
#if __FreeBSD_version >= 1400000
#define TH_SND_IO_TRYLOCK(so)	(SOCK_IO_SEND_LOCK((so), 0) == 0)
#define TH_SND_IO_UNLOCK(so)	SOCK_IO_SEND_UNLOCK(so)
#define TH_RCV_IO_TRYLOCK(so)	(SOCK_IO_RECV_LOCK((so), 0) == 0)
#define TH_RCV_IO_UNLOCK(so)	SOCK_IO_RECV_UNLOCK(so)
#define TH_SBRESERVE(so, which, cc)	\
	sbreserve_locked((so), (which), (cc), curthread)
#else
#define TH_SND_IO_TRYLOCK(so)	(sblock(&(so)->so_snd, 0) == 0)
#define TH_SND_IO_UNLOCK(so)	sbunlock(&(so)->so_snd)
#define TH_RCV_IO_TRYLOCK(so)	(sblock(&(so)->so_rcv, 0) == 0)
#define TH_RCV_IO_UNLOCK(so)	sbunlock(&(so)->so_rcv)
#define TH_SBRESERVE(so, which, cc)	\
	sbreserve_locked((which) == SO_RCV ? &(so)->so_rcv : &(so)->so_snd, \
	    (cc), (so), curthread)
#endif

/* 15: a declining pr_aio_queue calls the generic path itself. */
#if __FreeBSD_version >= 1500000
#define TH_AIO_GENERIC(so, job)	soaio_queue_generic((so), (job))
#else
#define TH_AIO_GENERIC(so, job)	(EOPNOTSUPP)
#endif

/* 14: the syncache wants a read lock on the listener, and a port for TCP over UDP. */
#if __FreeBSD_version >= 1400000
#define TH_SYNCACHE_RELOCK(inp)	INP_DOWNGRADE(inp)
#define TH_SYNCACHE_CHKRST(inc, th)	syncache_chkrst((inc), (th), NULL, 0)
#define TH_SET_FLAGS(th, flags)	tcp_set_flags((th), (flags))
#else
#define TH_SYNCACHE_RELOCK(inp)	INP_WLOCK_ASSERT(inp)
#define TH_SYNCACHE_CHKRST(inc, th)	syncache_chkrst((inc), (th), NULL)
#define TH_SET_FLAGS(th, flags)	((th)->th_flags = (flags))
#endif

/* 12.2: the syncache wants the TOS byte. */
#if __FreeBSD_version >= 1202000
#define TH_SYNCACHE_ADD(inc, to, th, inp, tod, ctx, tos) \
	toe_syncache_add((inc), (to), (th), (inp), (tod), (ctx), (tos))
#else
#define TH_SYNCACHE_ADD(inc, to, th, inp, tod, ctx, tos) \
	toe_syncache_add((inc), (to), (th), (inp), (tod), (ctx))
#endif

/* 12.2 (12-STABLE since early 2020): each vnet has its own; a macro then. */
#ifdef V_tcp_always_keepalive
#define TH_ALWAYS_KEEPALIVE	V_tcp_always_keepalive
#else
#define TH_ALWAYS_KEEPALIVE	tcp_always_keepalive
#endif

/*
 * dev/cxgbe, 14.2: a driver is registered under an id that is no member of its uld_info,
 * may be stopped and restarted with the adapter, and finds the atid table made.
 */
#if __FreeBSD_version >= 1402000
#define TH_HAVE_STOP
#define TH_ULD_METHODS(on, off)	\
	.uld_activate = (on), .uld_deactivate = (off), \
	.uld_stop = th_stop, .uld_restart = th_restart
#define TH_REGISTER_ULD(ui)	t4_register_uld((ui), ULD_TOM)
#define TH_UNREGISTER_ULD(ui)	t4_unregister_uld((ui), ULD_TOM)
#define TH_BASE_HAS_ATIDS
#else
#define TH_ULD_METHODS(on, off)	\
	.uld_id = ULD_TOM, .activate = (on), .deactivate = (off)
#define TH_REGISTER_ULD(ui)	t4_register_uld(ui)
#define TH_UNREGISTER_ULD(ui)	t4_unregister_uld(ui)
#endif

/* 13: how the VNIC field of a filter tuple is used is a mode. */
#if __FreeBSD_version >= 1300000
#define TH_VNIC_IS_PF_VF(tp)	((tp)->vnic_mode == FW_VNIC_MODE_PF_VF)
#else
#define TH_VNIC_IS_PF_VF(tp)	(((tp)->ingress_config & F_VNIC) != 0)
#endif

/* 14: the modulation queue of a channel is a macro. */
#ifdef TX_MODQ
#define TH_TX_MODQ(tp, chan)	TX_MODQ(chan)
#else
#define TH_TX_MODQ(tp, chan)	((tp)->tx_modq[chan])
#endif

/* With the T7 the logical port became the hardware's, and next hops lost their SMT index. */
#ifdef CHELSIO_T7
#define TH_PORT_HW(pi)		((pi)->hw_port)
#define TH_L2E_PORT(e, vi)	((e)->hw_port = (vi)->pi->hw_port)
#else
#define TH_PORT_HW(pi)		((pi)->lport)
#define TH_L2E_PORT(e, vi)	\
	((e)->smt_idx = (vi)->smt_idx, (e)->lport = (vi)->pi->lport)
#endif

/* The adapter's name; the simulated adapter of packaged builds has no newbus. */
#ifdef TOEHOLD_STANDIN
#define TH_NAMEUNIT(sc)		((sc)->nameunit)
#else
#define TH_NAMEUNIT(sc)		device_get_nameunit((sc)->dev)
#endif

#endif /* TOEHOLD_COMPAT_H */
