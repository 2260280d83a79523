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
#define TS_SET_NAMEUNIT(sc)	\
	strlcpy((sc)->nameunit, "t5nex0", sizeof((sc)->nameunit))
/* Tunables of the TOE that came after 12.1. */
#define TS_TUNABLES_14

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

#if __FreeBSD_version < 1201000 || __FreeBSD_version >= 1300000
#error "t5sim.ko stands in for the if_cxgbe of FreeBSD 12.1 and later 12: for another release build it from packaged headers, without SYSDIR"
#endif

#define TS_MALLOC_NAME		"cxgbe"
#define TS_NAMEUNIT(sc)		device_get_nameunit((sc)->dev)
#define TS_SET_NAMEUNIT(sc)	((void)0)

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
 * Where sysctls go: below dev.t5nex.0 and dev.cxl.N. Nodes that are not there yet are added
 * to the context. module.c, nexus.c.
 */
struct sysctl_oid_list *ts_sysctl_node(struct ts_softc *,
    struct sysctl_ctx_list *);
struct sysctl_oid_list *ts_sysctl_port_node(struct ts_softc *,
    struct sysctl_ctx_list *, int);

#endif
