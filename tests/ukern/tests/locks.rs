//! mtx(9), rwlock(9), sx(9), sleep(9), and the checks around them.

mod common;

use common::{boot_with, idle_module, panic_of};
use ukern::{Config, boot, sched};

const SRC: &str = r#"
static struct mtx a, b, spin, rec, twin1, twin2; static struct rwlock rw, rwr; static struct sx sx, sx2; static struct cv cv; static int n, go;
static void setup(const void *x) {
    mtx_init(&a, "a", NULL, MTX_DEF); mtx_init(&b, "b", NULL, MTX_DEF); mtx_init(&spin, "spin", NULL, MTX_SPIN);
    mtx_init(&rec, "rec", NULL, MTX_DEF | MTX_RECURSE); mtx_init(&twin1, "t1", "twin", MTX_DEF); mtx_init(&twin2, "t2", "twin", MTX_DEF | MTX_DUPOK);
    rw_init(&rw, "rw"); rw_init_flags(&rwr, "rwr", RW_RECURSE); sx_init(&sx, "sx"); sx_init(&sx2, "sx2"); cv_init(&cv, "cv");
}
SYSINIT(locks, SI_SUB_LOCK, SI_ORDER_ANY, setup, NULL);
static void teardown(const void *x) {
    mtx_destroy(&a); mtx_destroy(&b); mtx_destroy(&spin); mtx_destroy(&rec); mtx_destroy(&twin1); mtx_destroy(&twin2);
    rw_destroy(&rw); rw_destroy(&rwr); sx_destroy(&sx); sx_destroy(&sx2); cv_destroy(&cv);
}
SYSUNINIT(locks, SI_SUB_LOCK, SI_ORDER_ANY, teardown, NULL);
long basics(void) {
    long r = 0; mtx_lock(&a); r |= mtx_owned(&a) ? 1 : 0; mtx_assert(&a, MA_OWNED | MA_NOTRECURSED); mtx_unlock(&a); mtx_assert(&a, MA_NOTOWNED);
    r |= mtx_owned(&a) ? 0 : 2; mtx_lock(&rec); mtx_lock(&rec); r |= mtx_recursed(&rec) ? 4 : 0; mtx_unlock(&rec); mtx_unlock(&rec);
    rw_rlock(&rw); rw_assert(&rw, RA_RLOCKED); r |= rw_try_upgrade(&rw) ? 8 : 0; rw_assert(&rw, RA_WLOCKED); r |= rw_wowned(&rw) ? 16 : 0;
    rw_downgrade(&rw); rw_assert(&rw, RA_LOCKED); rw_runlock(&rw); rw_assert(&rw, RA_UNLOCKED);
    sx_xlock(&sx); r |= sx_xlocked(&sx) ? 32 : 0; sx_assert(&sx, SA_XLOCKED); sx_downgrade(&sx); sx_assert(&sx, SA_SLOCKED); sx_unlock(&sx);
    rw_wlock(&rwr); rw_wlock(&rwr); rw_unlock(&rwr); rw_unlock(&rwr); sx_slock(&sx); sx_sunlock(&sx);
    mtx_lock_spin(&spin); r |= curthread->td_critnest == 1 ? 64 : 0; mtx_unlock_spin(&spin); r |= curthread->td_critnest == 0 ? 128 : 0;
    return (r);
}
void inc(void *arg) { for (int i = 0; i < 200; i++) { mtx_lock(&a); int v = n; critical_enter(); critical_exit(); n = v + 1; mtx_unlock(&a); } }
void inc_bare(void *arg) { for (int i = 0; i < 200; i++) { int v = n; critical_enter(); critical_exit(); n = v + 1; } }
void spawn(void *f) { struct thread *td; for (int i = 0; i < 4; i++) kthread_add(f, NULL, NULL, &td, 0, 0, "worker%d", i); }
void spawn_inc(void) { n = 0; spawn(inc); }
void spawn_bare(void) { n = 0; spawn(inc_bare); }
int get_n(void) { return (n); }
static void sleeper(void *arg) { mtx_lock(&a); while (!go) { int e = msleep(&go, &a, 0, "waitgo", 0); n = e; } n = 77; mtx_unlock(&a); }
void start_sleeper(void) { struct thread *td; kthread_add(sleeper, NULL, NULL, &td, 0, 0, "sleeper"); }
void release(void) { mtx_lock(&a); go = 1; wakeup(&go); mtx_unlock(&a); }
long timed(void) { sbintime_t t = sbinuptime(); mtx_lock(&a); int e = msleep(&n, &a, 0, "timed", hz / 2); mtx_assert(&a, MA_OWNED); mtx_unlock(&a);
    return (e * 10000 + (sbinuptime() - t) / SBT_1MS); }
long pdrop(void) { mtx_lock(&a); int e = msleep(&n, &a, PDROP, "pdrop", 1); mtx_assert(&a, MA_NOTOWNED); return (e); }
static void cvw(void *arg) { mtx_lock(&a); cv_wait(&cv, &a); n++; mtx_unlock(&a); }
void cvs(void) { n = 0; spawn(cvw); }
void cvgo(void) { mtx_lock(&a); cv_broadcast(&cv); mtx_unlock(&a); }
void cvone(void) { mtx_lock(&a); cv_signal(&cv); mtx_unlock(&a); }
long try_held(void) { return (mtx_trylock(&a) * 4 + rw_try_wlock(&rw) * 2 + sx_try_xlock(&sx)); }
void recurse(void) { mtx_lock(&a); mtx_lock(&a); }
void rw_recurse_(void) { rw_wlock(&rw); rw_wlock(&rw); }
void sx_recurse_(void) { sx_xlock(&sx); sx_xlock(&sx); }
void not_owner(void) { mtx_unlock(&a); }
void not_reader(void) { rw_runlock(&rw); }
void ab(void) { mtx_lock(&a); mtx_lock(&b); mtx_unlock(&b); mtx_unlock(&a); }
void ba(void) { mtx_lock(&b); mtx_lock(&a); mtx_unlock(&a); mtx_unlock(&b); }
void ab_ba(void) { ab(); ba(); }
void cycle3(void) { ab(); mtx_lock(&b); rw_wlock(&rw); rw_wunlock(&rw); mtx_unlock(&b); rw_rlock(&rw); mtx_lock(&a); }
void twins(void) { mtx_lock(&twin2); mtx_lock(&twin1); }
void twins_ok(void) { mtx_lock(&twin1); mtx_lock(&twin2); mtx_unlock(&twin2); mtx_unlock(&twin1); }
void sleep_mtx(void) { mtx_lock(&a); pause("x", 1); }
void sleep_rw(void) { rw_rlock(&rw); pause("x", 1); }
void sleep_sx(void) { sx_xlock(&sx); pause("x", 1); sx_xunlock(&sx); }
void sx_under_mtx(void) { mtx_lock(&a); sx_xlock(&sx); }
void mtx_critical(void) { critical_enter(); mtx_lock(&a); }
void mtx_under_spin(void) { mtx_lock_spin(&spin); mtx_lock(&a); }
void sleep_spin(void) { mtx_lock_spin(&spin); pause("x", 1); }
void uninit(void) { static struct mtx m; mtx_lock(&m); }
void destroyed(void) { struct mtx m; memset(&m, 0, sizeof m); mtx_init(&m, "gone", NULL, 0); mtx_destroy(&m); mtx_lock(&m); }
void reinit(void) { mtx_init(&a, "a", NULL, 0); }
void destroy_held(void) { rw_rlock(&rw); rw_destroy(&rw); }
void bad_assert(void) { mtx_assert(&a, MA_OWNED); }
void bad_rw_assert(void) { rw_rlock(&rw); rw_assert(&rw, RA_WLOCKED); }
void bad_sx_assert(void) { sx_assert(&sx, SA_LOCKED); }
static void holder(void *arg) { mtx_lock(&a); }
void exit_holding(void) { struct thread *td; kthread_add(holder, NULL, NULL, &td, 0, 0, "holder"); pause("x", 1); }
static void dl(void *arg) { sx_xlock(&sx2); pause("x", 1); sx_xlock(&sx); sx_xunlock(&sx); sx_xunlock(&sx2); }
void forever(void) { mtx_lock(&a); msleep(&n, &a, 0, "forever", 0); }
void spin_wrong(void) { mtx_lock(&spin); }
void wlock_reading(void) { rw_rlock(&rw); rw_wlock(&rw); }
void upgrade_unheld(void) { rw_try_upgrade(&rw); }
void sleep_unheld(void) { msleep(&n, &a, 0, "x", 1); }
static void waiter(void *x) { mtx_lock(&a); }
void destroy_waited(void) { struct thread *td; mtx_lock(&a); kthread_add(waiter, NULL, NULL, &td, 0, 0, "waiter");
    for (int i = 0; i < 5000; i++) critical_enter(), critical_exit(); mtx_destroy(&a); }
static void spinwait(void *x) { mtx_lock_spin(&spin); while (!go) msleep_spin(&go, &spin, "spinw", 0); n = 5; mtx_unlock_spin(&spin); }
void spin_start(void) { struct thread *td; kthread_add(spinwait, NULL, NULL, &td, 0, 0, "spinner"); }
void spin_go(void) { mtx_lock_spin(&spin); go = 1; wakeup(&go); mtx_unlock_spin(&spin); }
static void quits(void *x) { n = 3; kthread_exit(); n = 4; }
void quit(void) { struct proc *p; n = 0; kproc_create(quits, NULL, &p, 0, 0, "quitter"); pause("w", 1); }
long readers(void) { rw_rlock(&rw); rw_rlock(&rw); long r = rw_try_wlock(&rw) == 0 && rw_try_upgrade(&rw) == 0; rw_runlock(&rw); rw_runlock(&rw);
    if (rw_try_wlock(&rw)) r += 2; rw_wunlock(&rw); return (r); }
void unlock_twice(void) { sx_xlock(&sx); sx_xunlock(&sx); sx_xunlock(&sx); }
"#;

fn report(func: &str) -> String {
    panic_of(SRC, func)
}

#[test]
fn the_lock_words_read_as_the_headers_expect() {
    let k = boot_with("scratch", SRC);
    assert_eq!(k.call("scratch", "basics", [0; 4]), 255);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn a_mutex_excludes_and_without_one_updates_are_lost() {
    let ko = idle_module("scratch", SRC);
    let mut lost = 0;
    for seed in 0..20 {
        let k = boot(Config::seed(seed).preempt(8));
        k.kldload(&ko).unwrap();
        k.call("scratch", "spawn_inc", [0; 4]);
        k.run_until_idle();
        assert_eq!(k.call("scratch", "get_n", [0; 4]), 800, "seed {seed}");
        k.call("scratch", "spawn_bare", [0; 4]);
        k.run_until_idle();
        lost += u32::from(k.call("scratch", "get_n", [0; 4]) < 800);
        k.kldunload("scratch").unwrap();
        k.shutdown();
    }
    // The scheduler is worth something only if it breaks the program with no lock.
    assert!(lost > 15, "{lost}");
}

#[test]
fn msleep_gives_the_lock_up_and_wakeup_ends_it() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "start_sleeper", [0; 4]);
    k.run_until_idle();
    assert_eq!(k.call("scratch", "get_n", [0; 4]), 0);
    k.call("scratch", "release", [0; 4]);
    k.run_until_idle();
    assert_eq!(k.call("scratch", "get_n", [0; 4]), 77);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn timeouts_pass_in_virtual_time() {
    let k = boot_with("scratch", SRC);
    let r = k.call("scratch", "timed", [0; 4]);
    assert_eq!(r / 10000, 35, "EWOULDBLOCK");
    assert!((500..510).contains(&(r % 10000)), "{r}");
    assert_eq!(k.call("scratch", "pdrop", [0; 4]), 35);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn condition_variables_wake_one_or_all() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "cvs", [0; 4]);
    k.run_until_idle();
    k.call("scratch", "cvone", [0; 4]);
    k.run_until_idle();
    assert_eq!(k.call("scratch", "get_n", [0; 4]), 1);
    k.call("scratch", "cvgo", [0; 4]);
    k.run_until_idle();
    assert_eq!(k.call("scratch", "get_n", [0; 4]), 4);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn recursion_is_found_where_not_allowed() {
    for (f, what) in [
        ("recurse", "mutex \"a\""),
        ("rw_recurse_", "rw \"rw\""),
        ("sx_recurse_", "sx \"sx\""),
    ] {
        let r = report(f);
        assert!(
            r.contains(&format!("recursed on non-recursive {what}")) && r.contains("scratch.c:"),
            "{r}"
        );
    }
}

#[test]
fn unlocking_what_one_does_not_hold_is_found() {
    assert!(report("not_owner").contains("which this thread does not own"));
    assert!(report("not_reader").contains("which nobody reads"));
    assert!(report("unlock_twice").contains("which this thread does not hold"));
    assert!(report("upgrade_unheld").contains("which this thread does not read"));
    assert!(report("sleep_unheld").contains("which is not held"));
}

#[test]
fn a_reversed_lock_order_is_found_with_both_places() {
    let r = report("ab_ba");
    assert!(
        r.contains("lock order reversal: acquiring \"a\"")
            && r.contains("\"a\" then \"b\" first at scratch.c"),
        "{r}"
    );
    let r = report("cycle3");
    assert!(
        r.contains("lock order reversal") && r.contains("\"b\" then \"rw\""),
        "{r}"
    );
}

#[test]
fn two_locks_of_a_type_need_dupok() {
    assert!(report("twins").contains("duplicate lock of same type \"twin\""));
    let k = boot_with("scratch", SRC);
    k.call("scratch", "twins_ok", [0; 4]);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn sleeping_with_a_mutex_is_found_and_with_an_sx_allowed() {
    for f in ["sleep_mtx", "sleep_rw"] {
        let r = report(f);
        assert!(r.contains("sleeping with a non-sleepable lock held"), "{r}");
    }
    assert!(report("sx_under_mtx").contains("acquiring sleepable lock \"sx\""));
    assert!(report("sleep_spin").contains("critical section"));
    let k = boot_with("scratch", SRC);
    k.call("scratch", "sleep_sx", [0; 4]);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn blocking_locks_in_critical_sections_are_found() {
    assert!(report("mtx_critical").contains("blockable sleep lock \"a\" in a critical section"));
    assert!(report("mtx_under_spin").contains("acquiring"));
    assert!(report("spin_wrong").contains("mtx_lock() of spin mutex"));
}

#[test]
fn uninitialised_and_destroyed_locks_are_found() {
    assert!(report("uninit").contains("not initialized or was destroyed"));
    assert!(report("destroyed").contains("not initialized or was destroyed"));
    assert!(report("reinit").contains("already initialized"));
    assert!(report("destroy_held").contains("which is held"));
}

#[test]
fn assertions_fire() {
    assert!(report("bad_assert").contains("mutex \"a\" not owned at scratch.c:"));
    assert!(report("bad_rw_assert").contains("rwlock \"rw\" not wlocked"));
    assert!(report("bad_sx_assert").contains("sx \"sx\" not locked"));
    assert!(report("wlock_reading").contains("holds it for reading"));
}

#[test]
fn spin_mutexes_can_be_slept_with_and_threads_quit() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "spin_start", [0; 4]);
    k.run_until_idle();
    k.call("scratch", "spin_go", [0; 4]);
    k.run_until_idle();
    assert_eq!(k.call("scratch", "get_n", [0; 4]), 5);
    k.call("scratch", "quit", [0; 4]);
    assert_eq!(k.call("scratch", "get_n", [0; 4]), 3);
    assert_eq!(k.call("scratch", "readers", [0; 4]), 3);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn destroying_a_lock_in_use_is_found() {
    assert!(report("destroy_waited").contains("destroyed while threads wait for it"));
}

#[test]
fn a_thread_that_ends_with_a_lock_is_found() {
    let r = report("exit_holding");
    assert!(
        r.contains("thread exit while holding exclusive sleep mutex \"a\""),
        "{r}"
    );
}

#[test]
fn a_sleep_nobody_ends_is_a_deadlock() {
    let r = report("forever");
    assert!(
        r.contains("deadlock: nothing can run") && r.contains("sleeps on \"forever\""),
        "{r}"
    );
}

#[test]
fn crossed_waits_are_a_deadlock_with_the_holders_named() {
    let k = boot_with("scratch", SRC);
    let r = k.expect_panic(|| {
        static CHANS: [usize; 2] = [0x1234_5601, 0x1234_5603];
        let other = sched::spawn_kthread("other", || {
            sched::sleep_on(CHANS[0], sched::SleepOpts::new("first"));
            sched::wakeup(CHANS[1]);
        });
        sched::sleep_on(CHANS[1], sched::SleepOpts::new("second"));
        sched::wakeup(CHANS[0]);
        sched::join(other);
    });
    assert!(
        r.contains("sleeps on \"first\"") && r.contains("sleeps on \"second\""),
        "{r}"
    );
}
