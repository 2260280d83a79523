/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026, The toehold authors
 */

/*
 * The module as its administrator sees it.  There is no control: lo0 knows
 * nothing of it.
 */

#include <sys/param.h>
#include <sys/socket.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "toetest.h"

/* Tenths of a second that a module may take to be rid of its last users. */
#define	UNLOAD_TRIES	100

/* EBUSY under a connection, which is none the worse. */
static void
unload_refused(enum path path)
{
	char where[MAXPATHLEN];
	struct aiocb cb;
	struct conn c;
	ssize_t n;
	void *buf;

	module_note("toehold", where, sizeof(where));
	conn_open(path, &c);
	buf = memory(65536);
	job_read(&cb, c.self, buf, 65536);
	pause_ms(50);
	ATF_REQUIRE_EQ(EBUSY, module_unload("toehold"));
	send_pattern(c.peer, 90, 0, 50000);
	ATF_REQUIRE(shutdown(c.peer, SHUT_WR) == 0);
	n = job_end(&cb);
	ATF_REQUIRE_MSG(n > 0, "the read: %zd", n);
	pattern_check(buf, 90, 0, n);
	ATF_REQUIRE_EQ(50000, drain(c.self, 90, n));
	conn_close(&c);
}
SCENARIO(toe_unload_refused, TOE, unload_refused,
    "the module stays while it has a connection")

/* With no connection it goes, listeners or not, and comes again. */
static void
unload_allowed(enum path path)
{
	char where[MAXPATHLEN];
	struct conn c;
	int error, i, round;

	module_note("toehold", where, sizeof(where));
	for (round = 0; round < 3; round++) {
		conn_open(path, &c);
		send_pattern(c.peer, round, 0, 50000);
		ATF_REQUIRE(shutdown(c.peer, SHUT_WR) == 0);
		ATF_REQUIRE_EQ(50000, drain(c.self, round, 0));
		conn_close(&c);
		all_quiet(path);
		for (i = 0;; i++) {
			error = module_unload("toehold");
			if (error != EBUSY || i == UNLOAD_TRIES)
				break;
			pause_ms(100);
		}
		ATF_REQUIRE_EQ_MSG(0, error, "kldunload toehold: %s",
		    strerror(error));
		ATF_REQUIRE_MSG(!knob_present(STATS_NODE "wrs"),
		    "counters without the module");
		ATF_REQUIRE_MSG(knob_present(TOE_NODE "ddp"),
		    "a variable of the base driver went as well");
		module_load(where);
		ports_up();
		listener_open(path);
	}
}
SCENARIO(toe_unload_allowed, TOE, unload_allowed,
    "the module goes when it has no connection, and comes again")

/* Variables that can be set, with a second value each can have. */
static const struct {
	const char *name;
	int64_t	other;
} knobs[] = {
	{ "ddp",		0 },
	{ "tx_zcopy",		0 },
	{ "sndbuf",		131072 },
	{ "rx_coalesce",	0 },
	{ "cong_algorithm",	2 },
	{ "tx_align",		0 },
	{ "ddp_cache",		16 },
	{ "max_wired",		65536 },
};

static const char *const counters[] = {
	"rx_aio_ddp_jobs", "rx_aio_ddp_octets", "rx_moved_octets",
	"rx_copied_before_ddp", "rx_copied_no_buffer", "rx_copied_no_ppods",
	"rx_copied_ddp_off", "rx_plain_octets", "rx_short", "tx_aio_jobs",
	"tx_aio_octets", "tx_copied_octets", "tx_plain_octets", "cache_hits",
	"cache_misses", "cache_evictions", "wired_pages", "wired_pages_max",
	"ppods_used", "ppods_used_max", "ppods_written", "ppod_wrs",
	"toepcbs", "toepcbs_max", "wrs", "no_ppods", "no_wr", "cancel_clean",
	"cancel_short", "bad_cpls", "bad_wrs", "listen_rejects", "l2_failures",
};

static void
sysctls_present(enum path path __unused)
{
	char name[128];
	size_t i;

	for (i = 0; i < nitems(knobs); i++) {
		snprintf(name, sizeof(name), TOE_NODE "%s", knobs[i].name);
		ATF_CHECK_MSG(knob_present(name), "%s is missing", name);
	}
	for (i = 0; i < nitems(counters); i++) {
		snprintf(name, sizeof(name), STATS_NODE "%s", counters[i]);
		ATF_CHECK_MSG(knob_present(name), "%s is missing", name);
		ATF_CHECK_MSG(knob_try(name, 1) != 0, "%s can be written",
		    name);
	}
}
SCENARIO(toe_sysctls_present, TOE, sysctls_present,
    "variables and counters are there, and counters cannot be written")

static void
sysctls_writable(enum path path __unused)
{
	char name[128];
	int64_t was;
	size_t i;

	for (i = 0; i < nitems(knobs); i++) {
		snprintf(name, sizeof(name), TOE_NODE "%s", knobs[i].name);
		was = knob_get(name);
		knob_change(name, knobs[i].other);
		ATF_CHECK_EQ_MSG(knobs[i].other, knob_get(name),
		    "%s does not change", name);
		knob_set(name, was);
		ATF_CHECK_EQ_MSG(was, knob_get(name), "%s does not change "
		    "back", name);
	}
}
SCENARIO(toe_sysctls_writable, TOE, sysctls_writable,
    "variables take another value, and the old one")

#define	LEN	(1 << 20)

/* Where the bytes of claimed reads went. */
static const char *const claimed[] = {
	"rx_aio_ddp_octets", "rx_moved_octets", "rx_copied_before_ddp",
	"rx_copied_no_buffer", "rx_copied_no_ppods", "rx_copied_ddp_off",
};

static int64_t
claimed_octets(void)
{
	int64_t sum;
	size_t i;

	for (sum = 0, i = 0; i < nitems(claimed); i++)
		sum += stat_get(claimed[i]);
	return (sum);
}

static void
transfer(enum path path)
{
	struct aiocb cb;
	struct peer peer;
	struct conn c;
	size_t at;
	ssize_t n;
	void *buf;

	conn_open(path, &c);
	buf = memory(65536);
	peer_write(&peer, c.peer, 94, 0, LEN, 0);
	for (at = 0; at < LEN; at += n) {
		job_read(&cb, c.self, buf, 65536);
		n = job_end(&cb);
		ATF_REQUIRE_MSG(n > 0, "read at %zu: %zd", at, n);
		pattern_check(buf, 94, at, n);
	}
	ATF_REQUIRE_EQ(LEN, peer_join(&peer));
	conn_close(&c);
}

/* With zero copy on every octet is accounted for as such; off, none is. */
static void
counters_move(enum path path)
{
	static const char *const others[] = {
		"rx_plain_octets", "tx_aio_octets", "tx_plain_octets",
		"rx_aio_ddp_octets", "rx_aio_ddp_jobs", "tx_aio_jobs", "wrs"
	};
	int64_t rx, v[nitems(others)];
	size_t i;
	int on;

	for (on = 1; on >= 0; on--) {
		knob_set(TOE_NODE "ddp", on);
		knob_set(TOE_NODE "tx_zcopy", on);
		rx = claimed_octets();
		for (i = 0; i < nitems(others); i++)
			v[i] = stat_get(others[i]);
		transfer(path);
		rx = claimed_octets() - rx;
		for (i = 0; i < nitems(others); i++)
			v[i] = stat_get(others[i]) - v[i];
		ATF_CHECK_EQ_MSG(on ? LEN : 0, rx, "%jd octets to claimed "
		    "reads", (intmax_t)rx);
		ATF_CHECK_EQ_MSG(on ? 0 : LEN, v[0], "%jd octets read "
		    "otherwise", (intmax_t)v[0]);
		ATF_CHECK_EQ_MSG(on ? LEN : 0, v[1], "%jd octets sent from "
		    "pages", (intmax_t)v[1]);
		ATF_CHECK_EQ_MSG(on ? 0 : LEN, v[2], "%jd octets sent "
		    "otherwise", (intmax_t)v[2]);
		ATF_CHECK_EQ_MSG(on, v[3] > 0, "%jd octets placed",
		    (intmax_t)v[3]);
		ATF_CHECK_EQ_MSG(on, v[4] > 0, "%jd reads claimed",
		    (intmax_t)v[4]);
		ATF_CHECK_EQ_MSG(on, v[5], "%jd writes claimed",
		    (intmax_t)v[5]);
		ATF_CHECK_MSG(v[6] > 0, "no work requests");
	}
}
SCENARIO(toe_counters_move, TOE, counters_move,
    "counters tell zero copy from copies")

ATF_TP_ADD_TCS(tp)
{

	ATF_TP_ADD_TC(tp, toe_unload_refused);
	ATF_TP_ADD_TC(tp, toe_unload_allowed);
	ATF_TP_ADD_TC(tp, toe_sysctls_present);
	ATF_TP_ADD_TC(tp, toe_sysctls_writable);
	ATF_TP_ADD_TC(tp, toe_counters_move);
	return (atf_no_error());
}
