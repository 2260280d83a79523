/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Upper-layer drivers: which are registered, which are active on the adapter, what they
 * see of it, and what IFCAP_TOE does about it.
 */
#include "softc.h"

static SLIST_HEAD(, uld_info) ts_ulds = SLIST_HEAD_INITIALIZER(ts_ulds);
static struct sx ts_uld_lock;

/* The one adapter; NULL when there is none. */
static struct ts_softc *ts_adapter;
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

/* Show the adapter to upper-layer drivers; NULL: waits until none looks at it. */
void
ts_publish(struct ts_softc *ts)
{

	sx_xlock(&ts_list_lock);
	ts_adapter = ts;
	sx_xunlock(&ts_list_lock);
}

void
t4_iterate(void (*func)(struct adapter *, void *), void *arg)
{

	sx_slock(&ts_list_lock);
	if (ts_adapter != NULL)
		func(&ts_adapter->sc, arg);
	sx_sunlock(&ts_list_lock);
}

bool
ts_uld_any(void)
{
	bool any;

	sx_slock(&ts_uld_lock);
	any = !SLIST_EMPTY(&ts_ulds);
	sx_sunlock(&ts_uld_lock);
	return (any);
}

static struct uld_info *
ts_uld_find(int id)
{
	struct uld_info *ui;

	SLIST_FOREACH(ui, &ts_ulds, link)
		if (ui->uld_id == id)
			break;
	return (ui);
}

int
t4_register_uld(struct uld_info *ui)
{
	int rc;

	rc = EEXIST;
	sx_xlock(&ts_uld_lock);
	if (ts_uld_find(ui->uld_id) == NULL) {
		ui->refcount = 0;
		SLIST_INSERT_HEAD(&ts_ulds, ui, link);
		rc = 0;
	}
	sx_xunlock(&ts_uld_lock);
	return (rc);
}

int
t4_unregister_uld(struct uld_info *ui)
{
	int rc;

	sx_xlock(&ts_uld_lock);
	if (ts_uld_find(ui->uld_id) != ui)
		rc = EINVAL;
	else if (ui->refcount > 0)
		rc = EBUSY;
	else {
		SLIST_REMOVE(&ts_ulds, ui, uld_info, link);
		if (SLIST_EMPTY(&ts_ulds))
			ts_cpl_forget();
		rc = 0;
	}
	sx_xunlock(&ts_uld_lock);
	return (rc);
}

/* Synchronized operations exclude each other, so refcount needs no more. */
int
t4_activate_uld(struct adapter *sc, int id)
{
	struct uld_info *ui;
	int rc;

	if (id < 0 || id > ULD_MAX)
		return (EINVAL);
	sx_slock(&ts_uld_lock);
	ui = ts_uld_find(id);
	rc = ui == NULL ? EAGAIN : ui->activate(sc);
	if (rc == 0) {
		sc->active_ulds |= 1 << id;
		ui->refcount++;
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
	ui = ts_uld_find(id);
	rc = ui == NULL ? ENXIO : ui->deactivate(sc);
	if (rc == 0) {
		sc->active_ulds &= ~(1 << id);
		ui->refcount--;
	}
	sx_sunlock(&ts_uld_lock);
	return (rc);
}

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
