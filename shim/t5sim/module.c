/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Module t5sim: one simulated adapter, t5nex0, from load to unload. Unload is refused
 * while an upper-layer driver is registered, as if_cxgbe refuses it.
 */
#include "softc.h"

MALLOC_DEFINE(M_CXGBE, "t5sim", "Simulated T5 adapter");

struct ts_softc *ts_adapter;

static int
ts_load(void)
{
	struct ts_softc *ts;
	int i, rc;

	ts_uld_modload();
	ts = ts_adapter_new();
	if (ts == NULL) {
		ts_uld_modunload();
		return (ENXIO);
	}
	ts_engine_start(ts);
	ts_sysctl_attach(ts);
	rc = 0;
	for (i = 0; i < T5SIM_NPORTS && rc == 0; i++)
		rc = ts_port_attach(ts, i);
	if (rc != 0) {
		while (--i > 0)
			ts_port_detach(ts, i - 1);
		ts_sysctl_detach(ts);
		ts_engine_stop(ts);
		ts_adapter_free(ts);
		ts_uld_modunload();
		return (rc);
	}
	ts_adapter = ts;
	return (0);
}

static int
ts_unload(void)
{
	struct ts_softc *ts;
	int i;

	if (ts_uld_any())
		return (EBUSY);
	ts = ts_adapter;
	if (ts == NULL)
		return (0);
	ts_adapter = NULL;
	for (i = 0; i < T5SIM_NPORTS; i++)
		ts_port_detach(ts, i);
	ts_sysctl_detach(ts);
	ts_engine_stop(ts);
	ts_adapter_free(ts);
	ts_uld_modunload();
	return (0);
}

static int
ts_modevent(module_t mod, int what, void *arg)
{

	switch (what) {
	case MOD_LOAD:
		return (ts_load());
	case MOD_QUIESCE:
		return (ts_adapter != NULL && ts_uld_any() ? EBUSY : 0);
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
