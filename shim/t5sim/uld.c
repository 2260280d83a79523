/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Upper-layer drivers: which are registered, which are active on an adapter, what they
 * see of it, and what IFCAP_TOE does about it.
 */
#include "softc.h"

/* By id, and on how many adapters each is active. */
static struct {
	struct uld_info *ui;
	u_int active;
} ts_ulds[ULD_MAX + 1];
static struct sx ts_uld_lock;

static LIST_HEAD(, ts_softc) ts_adapters = LIST_HEAD_INITIALIZER(ts_adapters);
static struct sx ts_list_lock;

void
ts_uld_modload(void)
{

	sx_init(&ts_uld_lock, "t5sim ULDs");
	sx_init(&ts_list_lock, "t5sim adapters");
}

void
ts_uld_modunload(void)
{

	sx_destroy(&ts_list_lock);
	sx_destroy(&ts_uld_lock);
}

/* Show the adapter to upper-layer drivers, or not: waits until none looks at it. */
void
ts_publish(struct ts_softc *ts, bool on)
{

	sx_xlock(&ts_list_lock);
	if (on)
		LIST_INSERT_HEAD(&ts_adapters, ts, link);
	else
		LIST_REMOVE(ts, link);
	sx_xunlock(&ts_list_lock);
}

void
t4_iterate(void (*func)(struct adapter *, void *), void *arg)
{
	struct ts_softc *ts;

	sx_slock(&ts_list_lock);
	LIST_FOREACH(ts, &ts_adapters, link)
		func(&ts->sc, arg);
	sx_sunlock(&ts_list_lock);
}

bool
ts_uld_any(void)
{
	bool any;
	u_int i;

	any = false;
	sx_slock(&ts_uld_lock);
	for (i = 0; i < nitems(ts_ulds); i++)
		any |= ts_ulds[i].ui != NULL;
	sx_sunlock(&ts_uld_lock);
	return (any);
}

static int
ts_uld_register(struct uld_info *ui, int id)
{
	int rc;

	if (id < 0 || id > ULD_MAX)
		return (EINVAL);
	rc = EEXIST;
	sx_xlock(&ts_uld_lock);
	if (ts_ulds[id].ui == NULL) {
		ts_ulds[id].ui = ui;
		rc = 0;
	}
	sx_xunlock(&ts_uld_lock);
	return (rc);
}

static int
ts_uld_unregister(struct uld_info *ui, int id)
{
	int rc;

	if (id < 0 || id > ULD_MAX)
		return (EINVAL);
	sx_xlock(&ts_uld_lock);
	if (ts_ulds[id].ui != ui)
		rc = EINVAL;
	else if (ts_ulds[id].active > 0)
		rc = EBUSY;
	else {
		ts_ulds[id].ui = NULL;
		rc = 0;
	}
	sx_xunlock(&ts_uld_lock);
	if (rc == 0 && !ts_uld_any())
		ts_cpl_forget();
	return (rc);
}

#ifdef TS_ULD_BY_MEMBER
int
t4_register_uld(struct uld_info *ui)
{

	return (ts_uld_register(ui, ui->uld_id));
}

int
t4_unregister_uld(struct uld_info *ui)
{

	return (ts_uld_unregister(ui, ui->uld_id));
}
#else
int
t4_register_uld(struct uld_info *ui, int id)
{

	return (ts_uld_register(ui, id));
}

int
t4_unregister_uld(struct uld_info *ui, int id)
{

	return (ts_uld_unregister(ui, id));
}
#endif

/* Synchronized operations exclude each other, so the count needs no more. */
int
t4_activate_uld(struct adapter *sc, int id)
{
	struct uld_info *ui;
	int rc;

	if (id < 0 || id > ULD_MAX)
		return (EINVAL);
	sx_slock(&ts_uld_lock);
	ui = ts_ulds[id].ui;
	rc = ui == NULL ? EAGAIN : TS_ULD_ON(ui, sc);
	if (rc == 0) {
		sc->active_ulds |= 1 << id;
		ts_ulds[id].active++;
	}
	sx_sunlock(&ts_uld_lock);
	return (rc);
}

int
t4_deactivate_uld(struct adapter *sc, int id)
{
	struct uld_info *ui;
	int rc;

	if (id < 0 || id > ULD_MAX)
		return (EINVAL);
	sx_slock(&ts_uld_lock);
	ui = ts_ulds[id].ui;
	rc = ui == NULL ? ENXIO : TS_ULD_OFF(ui, sc);
	if (rc == 0) {
		sc->active_ulds &= ~(1 << id);
		ts_ulds[id].active--;
	}
	sx_sunlock(&ts_uld_lock);
	return (rc);
}

#ifdef TS_HAVE_STOP
/* Inside a synchronized operation, as are activation and its end. */
void
ts_uld_stop(struct adapter *sc)
{
	u_int i;

	sx_slock(&ts_uld_lock);
	for (i = 0; i < nitems(ts_ulds); i++)
		if (uld_active(sc, i) && ts_ulds[i].ui->uld_stop != NULL)
			(void)ts_ulds[i].ui->uld_stop(sc);
	sx_sunlock(&ts_uld_lock);
}

void
ts_uld_restart(struct adapter *sc)
{
	u_int i;

	sx_slock(&ts_uld_lock);
	for (i = 0; i < nitems(ts_ulds); i++)
		if (uld_active(sc, i) && ts_ulds[i].ui->uld_restart != NULL)
			(void)ts_ulds[i].ui->uld_restart(sc);
	sx_sunlock(&ts_uld_lock);
}
#endif

int
uld_active(struct adapter *sc, int id)
{

	return (id >= 0 && id <= ULD_MAX && (sc->active_ulds & 1 << id) != 0);
}

/*
 * IFCAP_TOE is about to change on this interface; inside a synchronized operation. On:
 * the first interface activates the TOE driver, EAGAIN if none is loaded. Off: new
 * connections stay in software, those that are offloaded live on.
 */
int
ts_toe_capability(struct vi_info *vi, bool enable)
{
	struct port_info *pi = vi->pi;
	struct adapter *sc = pi->adapter;
	int rc;

	if (!enable) {
		pi->uld_vis--;
		sc->offload_map &= ~(1 << pi->port_id);
		return (0);
	}
	if (!uld_active(sc, ULD_TOM)) {
		rc = t4_activate_uld(sc, ULD_TOM);
		if (rc == EAGAIN)
			printf("%s: no TOE driver is loaded: kldload toehold\n",
			    TS_NAMEUNIT(sc));
		if (rc != 0)
			return (rc);
	}
	pi->uld_vis++;
	sc->offload_map |= 1 << pi->port_id;
	return (0);
}
