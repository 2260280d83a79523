/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Built for a source tree: module t4nex, device t5nex0 below nexus0, and its ports cxl0 and
 * cxl1. A TOE driver written for if_cxgbe depends on t4nex and finds this one.
 *
 * The versions that the module declares are if_cxgbe's: whichever of the two comes second,
 * the kernel refuses it ("interface t4nex.1 already present in the KLD") with EEXIST before
 * any of it runs. cxl is among them because ifconfig(8) loads if_cxl for a cxl0 it does not
 * find.
 *
 * Everything here runs in a thread that may sleep, under Giant, as newbus has it.
 */
#include "softc.h"

#ifndef TOEHOLD_STANDIN

#include <sys/sockio.h>

/* The method tables of every driver cast their functions so. */
#ifdef __has_warning
#if __has_warning("-Wcast-function-type")
#pragma clang diagnostic ignored "-Wcast-function-type"
#endif
#endif

static struct ts_softc *
ts_of_port(device_t dev)
{
	struct port_info *pi = device_get_softc(dev);

	return (ts_of(pi->adapter));
}

struct sysctl_oid_list *
ts_sysctl_node(struct ts_softc *ts, struct sysctl_ctx_list *ctx)
{

	return (SYSCTL_CHILDREN(device_get_sysctl_tree(ts->sc.dev)));
}

struct sysctl_oid_list *
ts_sysctl_port_node(struct ts_softc *ts, struct sysctl_ctx_list *ctx, int i)
{

	return (SYSCTL_CHILDREN(device_get_sysctl_tree(ts->pi[i].dev)));
}

/* There is one kind of cable. */
static int
ts_media_change(struct ifnet *ifp)
{

	return (EOPNOTSUPP);
}

static void
ts_media_status(struct ifnet *ifp, struct ifmediareq *ifmr)
{
	struct vi_info *vi = if_getsoftc(ifp);

	ifmr->ifm_status = IFM_AVALID;
	if (vi->pi->link_cfg.link_ok) {
		ifmr->ifm_status |= IFM_ACTIVE;
		ifmr->ifm_active = vi->pi->media.ifm_cur->ifm_media;
	}
}

void
ts_media_init(struct ts_softc *ts, int i)
{
	struct ifmedia *media = &ts->pi[i].media;
	int word;

	switch (port_top_speed(&ts->pi[i])) {
	case 100:
		word = IFM_ETHER | IFM_FDX | IFM_100G_CR4;
		break;
	case 40:
		word = IFM_ETHER | IFM_FDX | IFM_40G_CR4;
		break;
	case 25:
		word = IFM_ETHER | IFM_FDX | IFM_25G_CR;
		break;
	case 10:
		word = IFM_ETHER | IFM_FDX | IFM_10G_TWINAX;
		break;
	default:
		word = IFM_ETHER | IFM_FDX | IFM_UNKNOWN;
		break;
	}
	ifmedia_init(media, IFM_IMASK, ts_media_change, ts_media_status);
	ifmedia_add(media, word, 0, NULL);
	ifmedia_set(media, word);
}

void
ts_media_fini(struct ts_softc *ts, int i)
{

	ifmedia_removeall(&ts->pi[i].media);
}

int
ts_media_ioctl(struct ifnet *ifp, struct vi_info *vi, u_long cmd,
    struct ifreq *ifr)
{

	switch (cmd) {
	case SIOCSIFMEDIA:
	case SIOCGIFMEDIA:
	case SIOCGIFXMEDIA:
		return (ifmedia_ioctl(ifp, ifr, &vi->pi->media, cmd));
	default:
		return (ether_ioctl(ifp, cmd, (caddr_t)ifr));
	}
}

static int
ts_cxl_probe(device_t dev)
{

	device_set_desc(dev, "port of a simulated T5");
	return (BUS_PROBE_DEFAULT);
}

static int
ts_cxl_attach(device_t dev)
{
	struct port_info *pi = device_get_softc(dev);

	return (ts_port_attach(ts_of_port(dev), pi->port_id));
}

/* By itself, or with the adapter, which has looked for upper-layer drivers by then. */
static int
ts_cxl_detach(device_t dev)
{
	struct port_info *pi = device_get_softc(dev);

	if (pi->adapter->active_ulds != 0)
		return (EBUSY);
	ts_port_detach(ts_of_port(dev), pi->port_id);
	return (0);
}

static device_method_t ts_cxl_methods[] = {
	DEVMETHOD(device_probe, ts_cxl_probe),
	DEVMETHOD(device_attach, ts_cxl_attach),
	DEVMETHOD(device_detach, ts_cxl_detach),
	DEVMETHOD_END
};

/* The softc is the adapter's: a struct port_info, as in if_cxgbe. */
static driver_t ts_cxl_driver = {
	.name = "cxl",
	.methods = ts_cxl_methods,
};

/* Once added it stays: nexus has no way to take back what it attached to it. */
static void
ts_nexus_identify(driver_t *driver, device_t parent)
{

	if (device_find_child(parent, "t5nex", -1) == NULL &&
	    BUS_ADD_CHILD(parent, 0, "t5nex", 0) == NULL)
		device_printf(parent, "cannot add t5nex0\n");
}

static int
ts_nexus_probe(device_t dev)
{

	device_set_desc(dev, "Simulated Chelsio T5 (t5sim)");
	return (BUS_PROBE_NOWILDCARD);
}

static int
ts_nexus_detach(device_t dev)
{
	struct ts_softc *ts = device_get_softc(dev);
	int rc;

	rc = ts_doom(ts);
	if (rc != 0)
		return (rc);
	rc = device_delete_children(dev);
	if (rc != 0) {
		ts_undoom(ts);
		return (rc);
	}
	device_set_softc(dev, NULL);
	ts_stop(ts);
	return (0);
}

static int
ts_nexus_attach(device_t dev)
{
	struct ts_softc *ts;
	device_t port;
	int i;
	bool all;

	ts = ts_start(dev, device_get_unit(dev));
	if (ts == NULL)
		return (ENXIO);
	device_set_softc(dev, ts);
	for (i = 0; i < T5SIM_NPORTS; i++) {
		port = device_add_child(dev, "cxl", -1);
		if (port == NULL)
			break;
		device_set_softc(port, &ts->pi[i]);
		ts->pi[i].dev = ts->vi[i].dev = port;
	}
	all = i == T5SIM_NPORTS && TS_ATTACH_CHILDREN(dev) == 0;
	for (i = 0; i < T5SIM_NPORTS && all; i++)
		all = device_is_attached(ts->pi[i].dev);
	if (!all) {
		(void)device_delete_children(dev);
		device_set_softc(dev, NULL);
		ts_stop(ts);
		return (ENXIO);
	}
	ts_publish(ts, true);
	return (0);
}

static device_method_t ts_nexus_methods[] = {
	DEVMETHOD(device_identify, ts_nexus_identify),
	DEVMETHOD(device_probe, ts_nexus_probe),
	DEVMETHOD(device_attach, ts_nexus_attach),
	DEVMETHOD(device_detach, ts_nexus_detach),
	DEVMETHOD(bus_print_child, bus_generic_print_child),
	DEVMETHOD_END
};

static driver_t ts_nexus_driver = {
	.name = "t5nex",
	.methods = ts_nexus_methods,
};

/* First to load and last to unload: the drivers below use what it makes. */
static int
ts_modevent(module_t mod, int what, void *arg)
{

	switch (what) {
	case MOD_LOAD:
		ts_uld_modload();
		return (0);
	case MOD_QUIESCE:
		return (ts_uld_any() ? EBUSY : 0);
	case MOD_UNLOAD:
		ts_uld_modunload();
		return (0);
	case MOD_SHUTDOWN:
		return (0);
	default:
		return (EOPNOTSUPP);
	}
}

static moduledata_t ts_mod = {
	.name = "t4nex",
	.evhand = ts_modevent,
};

DECLARE_MODULE(t4nex, ts_mod, SI_SUB_DRIVERS, SI_ORDER_FIRST);
MODULE_VERSION(t4nex, 1);
TS_DRIVER_MODULE(cxl, t5nex, ts_cxl_driver, ts_cxl_devclass, SI_ORDER_SECOND);
MODULE_VERSION(cxl, 1);
TS_DRIVER_MODULE(t5nex, nexus, ts_nexus_driver, ts_nexus_devclass,
    SI_ORDER_ANY);
MODULE_VERSION(t5nex, 1);

#endif
