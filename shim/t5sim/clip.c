/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Local IPv6 addresses in use. The simulated card compresses nothing, so any address
 * gets an entry, for as long as someone holds it.
 */
#include "softc.h"

void
ts_clip_init(struct ts_softc *ts)
{

	mtx_init(&ts->clip_lock, "t5sim CLIP", NULL, MTX_DEF);
	TAILQ_INIT(&ts->clips);
}

void
ts_clip_destroy(struct ts_softc *ts)
{
	struct clip_entry *ce;

	while ((ce = TAILQ_FIRST(&ts->clips)) != NULL) {
		printf("t5sim: CLIP entry still has %u references\n",
		    ce->refcount);
		TAILQ_REMOVE(&ts->clips, ce, link);
		free(ce, M_CXGBE);
	}
	mtx_destroy(&ts->clip_lock);
}

static struct clip_entry *
ts_clip_find(struct ts_softc *ts, const struct in6_addr *lip)
{
	struct clip_entry *ce;

	TAILQ_FOREACH(ce, &ts->clips, link)
		if (memcmp(&ce->lip, lip, sizeof(ce->lip)) == 0)
			break;
	return (ce);
}

struct clip_entry *
t4_hold_lip(struct adapter *sc, struct in6_addr *lip, struct clip_entry *ce)
{
	struct ts_softc *ts = ts_of(sc);

	mtx_lock(&ts->clip_lock);
	if (ce == NULL)
		ce = ts_clip_find(ts, lip);
	if (ce == NULL) {
		ce = malloc(sizeof(*ce), M_CXGBE, M_NOWAIT | M_ZERO);
		if (ce != NULL) {
			ce->lip = *lip;
			TAILQ_INSERT_TAIL(&ts->clips, ce, link);
		}
	}
	if (ce != NULL)
		ce->refcount++;
	mtx_unlock(&ts->clip_lock);
	return (ce);
}

void
t4_release_lip(struct adapter *sc, struct clip_entry *ce)
{
	struct ts_softc *ts = ts_of(sc);

	mtx_lock(&ts->clip_lock);
	if (--ce->refcount == 0) {
		TAILQ_REMOVE(&ts->clips, ce, link);
		free(ce, M_CXGBE);
	}
	mtx_unlock(&ts->clip_lock);
}
