/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A simulated adapter, t5nex0, from start to stop; and the module itself where it is built
 * from packaged headers: t5sim, which has as many as hw.t5sim.adapters says. See nexus.c for
 * module t4nex. Unload is refused while
 * an upper-layer driver is registered, as if_cxgbe refuses it.
 */
#include "softc.h"

MALLOC_DEFINE(M_CXGBE, TS_MALLOC_NAME, "Simulated T5 adapter");

/* A card at work, with no port yet. NULL: it could not be made. May sleep. */
struct ts_softc *
ts_start(device_t dev, int unit)
{
	struct ts_softc *ts;

	ts = ts_adapter_new(dev, unit);
	if (ts == NULL)
		return (NULL);
	ts_engine_start(ts);
	ts_sysctl_attach(ts);
	return (ts);
}

/*
 * No operation that names a port begins any more, so no upper-layer driver is activated.
 * EBUSY, and nothing has changed, if one is registered or active. May sleep.
 */
int
ts_doom(struct ts_softc *ts)
{
	int i;

	if (ts_uld_any())
		return (EBUSY);
	for (i = 0; i < T5SIM_NPORTS; i++)
		ts_vi_doom(&ts->sc, &ts->vi[i]);
	ts_publish(ts, false);
	if (ts->sc.active_ulds == 0)
		return (0);
	ts_undoom(ts);
	return (EBUSY);
}

/* It stays after all. */
void
ts_undoom(struct ts_softc *ts)
{
	int i;

	ADAPTER_LOCK(&ts->sc);
	for (i = 0; i < T5SIM_NPORTS; i++)
		TS_UNDOOM(&ts->vi[i]);
	ADAPTER_UNLOCK(&ts->sc);
	ts_publish(ts, true);
}

/* Its ports are gone. May sleep. */
void
ts_stop(struct ts_softc *ts)
{

	ts_sysctl_detach(ts);
	ts_engine_stop(ts);
	ts_adapter_free(ts);
}

#ifdef TOEHOLD_STANDIN

SYSCTL_DECL(_dev);

struct sysctl_oid_list *
ts_sysctl_node(struct ts_softc *ts, struct sysctl_ctx_list *ctx)
{
	struct sysctl_oid_list *node;
	char name[8];

	node = SYSCTL_CHILDREN(SYSCTL_ADD_NODE(ctx,
	    SYSCTL_STATIC_CHILDREN(_dev), OID_AUTO, "t5nex",
	    CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "simulated T5"));
	snprintf(name, sizeof(name), "%d", ts->unit);
	node = SYSCTL_CHILDREN(SYSCTL_ADD_NODE(ctx, node, OID_AUTO, name,
	    CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "simulated T5"));
	SYSCTL_ADD_STRING(ctx, node, OID_AUTO, "%desc",
	    CTLFLAG_RD | CTLFLAG_MPSAFE,
	    __DECONST(char *, "Simulated Chelsio T5 (t5sim)"), 0,
	    "device description");
	return (node);
}

struct sysctl_oid_list *
ts_sysctl_port_node(struct ts_softc *ts, struct sysctl_ctx_list *ctx, int i)
{
	struct sysctl_oid_list *cxl;
	char name[8];

	cxl = SYSCTL_CHILDREN(SYSCTL_ADD_NODE(ctx,
	    SYSCTL_STATIC_CHILDREN(_dev), OID_AUTO, "cxl",
	    CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "ports of simulated T5s"));
	snprintf(name, sizeof(name), "%d", ts->unit * T5SIM_NPORTS + i);
	return (SYSCTL_CHILDREN(SYSCTL_ADD_NODE(ctx, cxl, OID_AUTO, name,
	    CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, "port of a simulated T5")));
}

#define TS_MAX_ADAPTERS	4

/* From the first on, without a gap. */
static struct ts_softc *ts_loaded[TS_MAX_ADAPTERS];

/* An adapter with its ports.  May sleep. */
static int
ts_load_one(int unit)
{
	struct ts_softc *ts;
	int i, rc;

	ts = ts_start(NULL, unit);
	if (ts == NULL)
		return (ENXIO);
	rc = 0;
	for (i = 0; i < T5SIM_NPORTS && rc == 0; i++)
		rc = ts_port_attach(ts, i);
	if (rc != 0) {
		for (i = 0; i < T5SIM_NPORTS; i++)
			ts_port_detach(ts, i);
		ts_stop(ts);
		return (rc);
	}
	ts_loaded[unit] = ts;
	ts_publish(ts, true);
	return (0);
}

/* All, or, with EBUSY, none. */
static int
ts_unload(void)
{
	struct ts_softc *ts;
	int i, rc, unit;

	/* A load that failed is followed by this. */
	if (ts_loaded[0] == NULL)
		return (0);
	for (unit = 0; unit < TS_MAX_ADAPTERS; unit++) {
		if ((ts = ts_loaded[unit]) == NULL)
			break;
		rc = ts_doom(ts);
		if (rc != 0) {
			while (--unit >= 0)
				ts_undoom(ts_loaded[unit]);
			return (rc);
		}
	}
	while (--unit >= 0) {
		ts = ts_loaded[unit];
		ts_loaded[unit] = NULL;
		for (i = 0; i < T5SIM_NPORTS; i++)
			ts_port_detach(ts, i);
		ts_stop(ts);
	}
	ts_uld_modunload();
	return (0);
}

static int
ts_load(void)
{
	int n, rc, unit;

	n = 1;
	TUNABLE_INT_FETCH("hw.t5sim.adapters", &n);
	if (n < 1 || n > TS_MAX_ADAPTERS)
		return (EINVAL);
	ts_uld_modload();
	rc = 0;
	for (unit = 0; unit < n && rc == 0; unit++)
		rc = ts_load_one(unit);
	if (rc != 0 && ts_loaded[0] != NULL)
		(void)ts_unload();
	else if (rc != 0)
		ts_uld_modunload();
	return (rc);
}

static int
ts_modevent(module_t mod, int what, void *arg)
{

	switch (what) {
	case MOD_LOAD:
		return (ts_load());
	case MOD_QUIESCE:
		return (ts_loaded[0] != NULL && ts_uld_any() ? EBUSY : 0);
	case MOD_UNLOAD:
		return (ts_unload());
	case MOD_SHUTDOWN:
		return (0);
	default:
		return (EOPNOTSUPP);
	}
}

static moduledata_t ts_mod = {
	.name = "t5sim",
	.evhand = ts_modevent,
};

DECLARE_MODULE(t5sim, ts_mod, SI_SUB_PSEUDO, SI_ORDER_ANY);
MODULE_VERSION(t5sim, 1);

#endif
