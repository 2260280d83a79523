/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The adapter stops and starts again, as the base driver has it do when the machine is
 * suspended, when the adapter is reset, and after a fatal error. First nothing moves any
 * more: no DMA, no CPL, no work request. Then its drivers are told, then the card is reset;
 * they are told again when it works.
 */
#include "softc.h"

#include <net/if.h>
#include <net/if_var.h>
#include <machine/atomic.h>

bool
ts_is_off(struct ts_softc *ts)
{

	return (atomic_load_acq_int(&ts->off) != 0);
}

#ifdef TS_HAVE_STOP
static void
ts_set_off(struct ts_softc *ts, u_int off)
{
	struct port_info *pi;
	int i;

	/* The lock is that of the list of work requests. */
	mtx_lock(&ts->pend_lock);
	atomic_store_rel_int(&ts->off, off);
	mtx_unlock(&ts->pend_lock);
	if (off != 0)
		atomic_set_int((volatile u_int *)&ts->sc.error_flags, ADAP_STOPPED);
	else
		atomic_clear_int((volatile u_int *)&ts->sc.error_flags, ADAP_STOPPED);
	for_each_port(&ts->sc, i) {
		pi = ts->sc.port[i];
		pi->link_cfg.link_ok = off == 0;
		if_link_state_change(pi->vi[0].ifp,
		    off == 0 ? LINK_STATE_UP : LINK_STATE_DOWN);
	}
}

/* 0, also if it is stopped, or what begin_synchronized_op() says. Sleeps. */
int
ts_suspend(struct ts_softc *ts)
{
	int rc;

	rc = begin_synchronized_op(&ts->sc, NULL, SLEEP_OK | INTR_OK, "t5ssus");
	if (rc != 0)
		return (rc);
	if (!ts_is_off(ts)) {
		ts_set_off(ts, 1);
		ts_engine_pause(ts);
		ts_uld_stop(&ts->sc);
		sx_xlock(&ts->card_lock);
		t5sim_card_reset(ts->card, ts_now());
		sx_xunlock(&ts->card_lock);
	}
	end_synchronized_op(&ts->sc, 0);
	return (0);
}

int
ts_resume(struct ts_softc *ts)
{
	int rc;

	rc = begin_synchronized_op(&ts->sc, NULL, SLEEP_OK | INTR_OK, "t5sres");
	if (rc != 0)
		return (rc);
	if (ts_is_off(ts)) {
		ts->sc.incarnation++;
		ts_set_off(ts, 0);
		ts_uld_restart(&ts->sc);
		ts_engine_kick(ts);
	}
	end_synchronized_op(&ts->sc, 0);
	return (0);
}
#endif
