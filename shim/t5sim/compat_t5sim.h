/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Where t5sim.ko for packaged headers and t5sim.ko for a source tree differ, and nothing
 * else. One code path per difference: other files use the TS_ names.
 *
 * Packaged headers (TOEHOLD_STANDIN): module t5sim, on our own declarations of cxgbe's
 * structures, with no newbus device. Source tree: module t4nex, on that tree's own
 * structures, device t5nex0 with ports cxl0 and cxl1 (nexus.c), and what another TOE driver
 * for if_cxgbe may take besides (sched.c, chip.c).
 */
#ifndef COMPAT_T5SIM_H
#define COMPAT_T5SIM_H

#include <sys/param.h>

struct ts_softc;
struct sysctl_ctx_list;
struct sysctl_oid_list;

#if __FreeBSD_version >= 1400000
#define TS_IF_VNET(ifp)		if_getvnet(ifp)
#else
#define TS_IF_VNET(ifp)		((ifp)->if_vnet)
#endif

#ifdef TOEHOLD_STANDIN

#define TS_MALLOC_NAME		"t5sim"
#define TS_NAMEUNIT(sc)		((sc)->nameunit)
#define TS_SET_NAMEUNIT(sc, unit)	\
	snprintf((sc)->nameunit, sizeof((sc)->nameunit), "t5nex%d", unit)

/* Nothing to add to the structures, no media to choose from. */
static inline void
ts_t4nex_init(struct ts_softc *ts)
{
}

static inline void
ts_t4nex_fini(struct ts_softc *ts)
{
}

#define ts_media_init(ts, i)			((void)0)
#define ts_media_fini(ts, i)			((void)0)
#define ts_media_ioctl(ifp, vi, cmd, ifr)	ether_ioctl(ifp, cmd, (caddr_t)(ifr))

#else

#define TS_MALLOC_NAME		"cxgbe"
#define TS_NAMEUNIT(sc)		device_get_nameunit((sc)->dev)
#define TS_SET_NAMEUNIT(sc, unit)	((void)(unit))

/* chip.c: members that only the real structures have. */
void ts_t4nex_init(struct ts_softc *);
void ts_t4nex_fini(struct ts_softc *);

/* sched.c */
void ts_sched_init(struct ts_softc *);
void ts_sched_fini(struct ts_softc *);

/* nexus.c: what ifconfig shows as media. */
struct ifnet;
struct ifreq;
struct vi_info;
void ts_media_init(struct ts_softc *, int);
void ts_media_fini(struct ts_softc *, int);
int ts_media_ioctl(struct ifnet *, struct vi_info *, u_long, struct ifreq *);

#endif

/*
 * dev/cxgbe, 14.2: a driver is registered under an id that is no member of its uld_info and finds the
 * atid table made; queues of offloaded connections count for themselves, and the type of a
 * queue is a member; local IPv6 addresses have other functions and an opaque entry; a VI
 * knows its adapter; which TCP ports use TLS is no parameter.
 */
#if __FreeBSD_version >= 1402000
#define TS_BASE_HAS_ATIDS
#define TS_HAVE_STOP
#define TS_CLIP_IS_OPAQUE
#define TS_ULD_ON(ui, sc)	((ui)->uld_activate(sc))
#define TS_ULD_OFF(ui, sc)	((ui)->uld_deactivate(sc))
#define TS_TXQ			struct sge_ofld_txq
#define TS_TXQ_WRQ(q)		(&(q)->wrq)
#define TS_EQ_INIT(eq, t)	\
	((eq)->type = (t), \
	(eq)->flags = EQ_SW_ALLOCATED | EQ_HW_ALLOCATED | EQ_ENABLED)
#define TS_EQ_IS_CTRL(eq)	((eq)->type == EQ_CTRL)
#define TS_VI_INIT(vi, sc)	((vi)->adapter = (sc))
#define TS_L2T_BY_ADAPTER
#define TS_FREE_L2T(sc)		t4_free_l2t(sc)
#define TS_NSCHED_CLS(sc)	((sc)->params.nsched_cls)
#define TS_TUNABLES_14
#else
#define TS_ULD_BY_MEMBER
#define TS_ULD_ON(ui, sc)	((ui)->activate(sc))
#define TS_ULD_OFF(ui, sc)	((ui)->deactivate(sc))
#define TS_TXQ			struct sge_wrq
#define TS_TXQ_WRQ(q)		(q)
#define TS_EQ_INIT(eq, t)	\
	((eq)->flags = (t) | EQ_ALLOCATED | EQ_ENABLED)
#define TS_EQ_IS_CTRL(eq)	(((eq)->flags & EQ_TYPEMASK) == EQ_CTRL)
#define TS_VI_INIT(vi, sc)	((void)0)
#define TS_FREE_L2T(sc)		t4_free_l2t((sc)->l2t)
#define TS_TLS_RX_PORTS
#endif

/* Since 13: how a VI that goes away is marked. */
#ifdef IS_DETACHING
#define TS_IS_DOOMED(vi)	IS_DETACHING(vi)
#define TS_DOOM(vi)		SET_DETACHING(vi)
#define TS_UNDOOM(vi)		CLR_DETACHING(vi)
#else
#define TS_IS_DOOMED(vi)	IS_DOOMED(vi)
#define TS_DOOM(vi)		((vi)->flags |= DOOMED)
#define TS_UNDOOM(vi)		((vi)->flags &= ~DOOMED)
#endif

/* With the T7 the logical port became the hardware's. */
#ifdef CHELSIO_T7
#define TS_HW_PORT(x)		((x)->hw_port)
#else
#define TS_HW_PORT(x)		((x)->lport)
#endif

/* 12.2: capabilities of a link have names of 32-bit firmware. */
#if __FreeBSD_version >= 1202000
#define TS_LINK_CAPS(lc, caps)	((lc)->pcaps = (lc)->acaps = (caps))
#else
#define TS_LINK_CAPS(lc, caps)	((lc)->supported = (lc)->advertising = (caps))
#endif

/* 14: drivers need no devclass. 15: children are attached by another name. */
#if __FreeBSD_version >= 1400000
#define TS_DRIVER_MODULE(name, bus, drv, cls, order)	\
	DRIVER_MODULE_ORDERED(name, bus, drv, NULL, NULL, order)
#else
#define TS_DRIVER_MODULE(name, bus, drv, cls, order)	\
	static devclass_t cls;				\
	DRIVER_MODULE_ORDERED(name, bus, drv, cls, NULL, NULL, order)
#endif
#if __FreeBSD_version >= 1500000
#define TS_ATTACH_CHILDREN(dev)	(bus_attach_children(dev), 0)
#else
#define TS_ATTACH_CHILDREN(dev)	bus_generic_attach(dev)
#endif

/*
 * Where sysctls go: below dev.t5nex.0 and dev.cxl.N. Nodes that are not there yet are added
 * to the context. module.c, nexus.c.
 */
struct sysctl_oid_list *ts_sysctl_node(struct ts_softc *,
    struct sysctl_ctx_list *);
struct sysctl_oid_list *ts_sysctl_port_node(struct ts_softc *,
    struct sysctl_ctx_list *, int);

#endif
