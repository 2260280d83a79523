/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The adapter stops and restarts below us: the machine is suspended, an
 * administrator resets it, or it met a fatal error.  Both methods run inside a
 * synchronized operation of the adapter and may sleep.
 */
#include "internal.h"

#ifdef TH_HAVE_STOP
#include <sys/epoch.h>
#include <sys/syslog.h>

/*
 * The base driver has shut the ports and the adapter's DMA down, waits for no
 * CPL handler any more, and takes no work request; the adapter is reset next.
 */
int
th_stop(struct adapter *sc)
{
	struct epoch_tracker et;
	struct th_tom *tom;

	tom = sc->tom_softc;
	if (tom == NULL)
		return (0);
	th_l2_stop(tom);
	/* Connections are dropped. */
	TH_EPOCH_ENTER(et);
	toehold_stop(tom->rs);
	TH_EPOCH_EXIT(et);
	return (0);
}

/* The adapter works again and knows nothing of before. */
int
th_restart(struct adapter *sc)
{
	struct epoch_tracker et;
	struct th_adapter_info ai;
	struct th_tom *tom;
	int error;

	tom = sc->tom_softc;
	if (tom == NULL)
		return (0);
	error = th_adapter_info(sc, &ai);
	if (error == 0 && !toehold_same_adapter(tom->rs, &ai))
		error = ENXIO;
	if (error != 0) {
		/* Stopped it stays: what is new goes the kernel's way. */
		log(LOG_ERR, "%s: toehold: the adapter came back another one; "
		    "nothing is offloaded until toehold is loaded anew\n",
		    TH_NAMEUNIT(sc));
		return (error);
	}
	th_set_tagmask(sc, ai.ddp_size);
	th_l2_restart(tom);
	TH_EPOCH_ENTER(et);
	toehold_restart(tom->rs);
	TH_EPOCH_EXIT(et);
	return (0);
}
#endif
