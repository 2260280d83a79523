/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Module glue: load, unload, dependencies.
 */
#include "internal.h"

MALLOC_DEFINE(M_TOEHOLD, "toehold", "toehold: offloaded connections");

static int
toehold_modevent(module_t mod, int cmd, void *arg)
{
	int error;

	switch (cmd) {
	case MOD_LOAD:
		error = th_protosw_init();
		if (error == 0)
			error = th_cxgbe_register();
		return (error);
	case MOD_UNLOAD:
		return (th_cxgbe_unregister());
	default:
		return (EOPNOTSUPP);
	}
}

static moduledata_t toehold_mod = {
	"toehold",
	toehold_modevent,
	NULL
};

MODULE_VERSION(toehold, 1);
/*
 * In the place of t4_tom: the kernel loads only one of them. t4_tom takes over the handlers
 * of CPLs before it finds that it is not alone, and leaves none behind.
 */
MODULE_VERSION(t4_tom, 1);
MODULE_DEPEND(toehold, toecore, 1, 1, 1);
#ifdef TOEHOLD_STANDIN
/* Built without cxgbe's own headers: must never meet a real adapter. */
MODULE_DEPEND(toehold, t5sim, 1, 1, 1);
#else
MODULE_DEPEND(toehold, t4nex, 1, 1, 1);
#endif
DECLARE_MODULE(toehold, toehold_mod, SI_SUB_EXEC, SI_ORDER_ANY);
