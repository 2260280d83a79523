/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Local IPv6 addresses in use. The simulated card compresses nothing, so any address
 * gets an entry, for as long as someone holds it.
 */
#include "softc.h"

#ifdef TS_CLIP_IS_OPAQUE
struct clip_entry {
	TAILQ_ENTRY(clip_entry) link;
	struct in6_addr lip;
	u_int refcount;
};
#endif

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

static struct clip_entry *
ts_clip_get(struct ts_softc *ts, const struct in6_addr *lip, bool add)
{
	struct clip_entry *ce;

	mtx_lock(&ts->clip_lock);
	ce = ts_clip_find(ts, lip);
	if (ce == NULL && add) {
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

static void
ts_clip_release(struct ts_softc *ts, struct clip_entry *ce)
{

	mtx_lock(&ts->clip_lock);
	if (--ce->refcount == 0) {
		TAILQ_REMOVE(&ts->clips, ce, link);
		free(ce, M_CXGBE);
	}
	mtx_unlock(&ts->clip_lock);
}

static void
ts_clip_hold(struct ts_softc *ts, struct clip_entry *ce)
{

	mtx_lock(&ts->clip_lock);
	ce->refcount++;
	mtx_unlock(&ts->clip_lock);
}

#ifdef TS_CLIP_IS_OPAQUE
struct clip_entry *
t4_get_clip_entry(struct adapter *sc, struct in6_addr *in6, bool add)
{

	return (ts_clip_get(ts_of(sc), in6, add));
}

void
t4_hold_clip_entry(struct adapter *sc, struct clip_entry *ce)
{

	ts_clip_hold(ts_of(sc), ce);
}

void
t4_release_clip_entry(struct adapter *sc, struct clip_entry *ce)
{

	ts_clip_release(ts_of(sc), ce);
}
#else
struct clip_entry *
t4_hold_lip(struct adapter *sc, struct in6_addr *lip, struct clip_entry *ce)
{

	if (ce == NULL)
		return (ts_clip_get(ts_of(sc), lip, true));
	ts_clip_hold(ts_of(sc), ce);
	return (ce);
}

void
t4_release_lip(struct adapter *sc, struct clip_entry *ce)
{

	ts_clip_release(ts_of(sc), ce);
}
#endif
