/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Built for a source tree: traffic classes, which a TOE driver reserves for connections
 * with a limited rate. Classes are counted as if_cxgbe counts them; the simulated wire does
 * not slow anyone down.
 */
#include "softc.h"

#ifndef TOEHOLD_STANDIN

/* May sleep. */
void
ts_sched_init(struct ts_softc *ts)
{
	struct tx_sched_params *p;
	struct tx_cl_rl_params *tc;
	int i, n;

	mtx_init(&ts->sc.tc_lock, "t5sim traffic classes", NULL, MTX_DEF);
	for (i = 0; i < T5SIM_NPORTS; i++) {
		n = ts->chip.nsched_cls;
		p = malloc(sizeof(*p) + n * sizeof(p->cl_rl[0]), M_CXGBE,
		    M_WAITOK | M_ZERO);
		while (n-- > 0) {
			tc = &p->cl_rl[n];
			tc->ratemode = FW_SCHED_PARAMS_RATE_ABS;
			tc->rateunit = FW_SCHED_PARAMS_UNIT_BITRATE;
			tc->mode = FW_SCHED_PARAMS_MODE_FLOW;
		}
		ts->pi[i].sched_params = p;
	}
}

void
ts_sched_fini(struct ts_softc *ts)
{
	const struct tx_cl_rl_params *tc;
	int i, j;

	for (i = 0; i < T5SIM_NPORTS; i++) {
		for (j = 0; j < ts->chip.nsched_cls; j++) {
			tc = &ts->pi[i].sched_params->cl_rl[j];
			if (tc->refcount != 0)
				printf("t5sim: traffic class %d of port %d still"
				    " has %d references\n", j, i, tc->refcount);
		}
		free(ts->pi[i].sched_params, M_CXGBE);
	}
	mtx_destroy(&ts->sc.tc_lock);
}

static struct tx_cl_rl_params *
ts_class(struct adapter *sc, int port_id, int tc_idx)
{

	mtx_assert(&sc->tc_lock, MA_OWNED);
	if (port_id < 0 || port_id >= T5SIM_NPORTS || tc_idx < 0 ||
	    tc_idx >= sc->chip_params->nsched_cls)
		return (NULL);
	return (&sc->port[port_id]->sched_params->cl_rl[tc_idx]);
}

/*
 * A reference to the port's class for flows of at most maxrate kb/s, a free one if none
 * has that rate. ENOSPC, and -1 for the class, if there is no free one. Never sleeps.
 */
int
t4_reserve_cl_rl_kbps(struct adapter *sc, int port_id, u_int maxrate,
    int *tc_idx)
{
	struct tx_cl_rl_params *tc, *found;
	int i;

	*tc_idx = -1;
	found = NULL;
	mtx_lock(&sc->tc_lock);
	for (i = 0; (tc = ts_class(sc, port_id, i)) != NULL; i++) {
		if (tc->refcount == 0 ? found != NULL : tc->maxrate != maxrate)
			continue;
		found = tc;
		*tc_idx = i;
		if (tc->refcount != 0)
			break;
	}
	if (found != NULL) {
		found->refcount++;
		found->maxrate = maxrate;
	}
	mtx_unlock(&sc->tc_lock);
	return (found != NULL ? 0 : ENOSPC);
}

/* Never sleeps. */
void
t4_release_cl_rl(struct adapter *sc, int port_id, int tc_idx)
{
	struct tx_cl_rl_params *tc;

	mtx_lock(&sc->tc_lock);
	tc = ts_class(sc, port_id, tc_idx);
	KASSERT(tc != NULL && tc->refcount > 0,
	    ("%s: class %d of port %d is not reserved", __func__, tc_idx,
	    port_id));
	if (tc != NULL)
		tc->refcount--;
	mtx_unlock(&sc->tc_lock);
}

#endif
