//! The scheduler, epochs, callouts, taskqueues, event handlers.

mod common;

use common::{boot_with, idle_module, panic_of};
use ukern::sched::{self, SBT_1MS, SBT_1S};
use ukern::{Config, boot};

const SRC: &str = r#"
static struct callout c, cm; static struct mtx m; static struct task t, t2, tn; static struct timeout_task tt; static struct taskqueue *tq;
static struct epoch_context ectx; static int log_[64], nlog, stop_reader, in_net;
MTX_SYSINIT(sync, &m, "sync", MTX_DEF);
static void note(int v) { log_[nlog++ & 63] = v; }
int nlogged(void) { return (nlog); } int logged(int i) { return (log_[i]); }
static void tick1(void *a) { note((int)(uintptr_t)a); }
static void again(void *a) { note(ticks); if (nlog < 5) callout_schedule(&c, hz); }
void co_setup(void) { callout_init(&c, 1); callout_init_mtx(&cm, &m, 0); }
long co_order(void) { static struct callout x, y, z; callout_init(&x, 1); callout_init(&y, 1); callout_init(&z, 1);
    callout_reset(&x, 30, tick1, (void *)3); callout_reset(&y, 10, tick1, (void *)1); callout_reset(&z, 20, tick1, (void *)2);
    long p = callout_pending(&x) && callout_active(&x); pause("co", 50); return (p && !callout_pending(&x)); }
void co_periodic(void) { co_setup(); callout_reset(&c, hz, again, NULL); }
long co_stop(void) { co_setup(); long r = callout_stop(&c) + 1; callout_reset(&c, 10, tick1, (void *)9);
    r = r * 10 + callout_reset(&c, 20, tick1, (void *)8); r = r * 10 + callout_stop(&c); pause("co", 50); return (r * 10 + nlog); }
static void slow(void *a) { note(1); for (int i = 0; i < 50; i++) { DELAY(1000); mtx_lock(&m); mtx_unlock(&m); } note(2); }
long co_drain(void) { co_setup(); callout_reset(&c, 1, slow, NULL); while (nlog == 0) pause("w", 1); callout_drain(&c); return (nlog); }
static void locked(void *a) { mtx_assert(&m, MA_OWNED); note(5); }
long co_mtx(void) { co_setup(); mtx_lock(&m); callout_reset(&cm, 1, locked, NULL); mtx_unlock(&m); pause("w", 3);
    mtx_lock(&m); callout_reset(&cm, 1, locked, NULL); DELAY(5000); for (int i = 0; i < 2000; i++) critical_enter(), critical_exit();
    int s = callout_stop(&cm); mtx_unlock(&m); pause("w", 5); return (nlog * 10 + s); }
void co_sleeps(void *a) { pause("bad", 1); }
void co_sleep(void) { co_setup(); callout_reset(&c, 1, co_sleeps, NULL); pause("w", 5); }
void co_drain_locked(void) { co_setup(); mtx_lock(&m); callout_drain(&cm); }
void co_nolock(void) { co_setup(); callout_reset(&cm, 1, locked, NULL); }
static void run(void *a, int pending) { note((int)(uintptr_t)a * 100 + pending); }
static void run_net(void *a, int pending) { in_net = in_epoch(net_epoch_preempt); }
void tq_make(void) { tq = taskqueue_create("scratch", M_WAITOK, taskqueue_thread_enqueue, &tq); taskqueue_start_threads(&tq, 1, PWAIT, "scratch %s", "tq"); }
long tq_run(void) { tq_make(); TASK_INIT(&t, 0, run, (void *)1); TASK_INIT(&t2, 5, run, (void *)2); NET_TASK_INIT(&tn, 0, run_net, NULL);
    taskqueue_block(tq); taskqueue_enqueue(tq, &t); taskqueue_enqueue(tq, &t); taskqueue_enqueue(tq, &t); taskqueue_enqueue(tq, &t2); taskqueue_enqueue(tq, &tn);
    taskqueue_unblock(tq); taskqueue_drain(tq, &t); taskqueue_drain_all(tq); long r = log_[0] * 1000 + log_[1]; taskqueue_free(tq); return (r * 10 + in_net); }
long tq_cancel(void) { u_int pend = 0; tq_make(); TASK_INIT(&t, 0, run, NULL); taskqueue_block(tq); taskqueue_enqueue(tq, &t); taskqueue_enqueue(tq, &t);
    int e = taskqueue_cancel(tq, &t, &pend); taskqueue_unblock(tq); taskqueue_drain(tq, &t); taskqueue_free(tq); return (e * 100 + pend * 10 + nlog); }
long tq_timeout(void) { tq_make(); TIMEOUT_TASK_INIT(tq, &tt, 0, run, (void *)7); sbintime_t s = sbinuptime(); taskqueue_enqueue_timeout(tq, &tt, hz);
    while (nlog == 0) pause("w", 1); long ms = (sbinuptime() - s) / SBT_1MS; taskqueue_enqueue_timeout(tq, &tt, hz); u_int p = 0;
    taskqueue_cancel_timeout(tq, &tt, &p); taskqueue_drain_timeout(tq, &tt); taskqueue_free(tq); return (ms * 100 + p * 10 + nlog); }
static void self(void *a, int pending) { taskqueue_drain(tq, &t); }
void tq_self(void) { tq_make(); TASK_INIT(&t, 0, self, NULL); taskqueue_enqueue(tq, &t); pause("w", 5); }
void tq_keep(void) { tq_make(); }
static void net_sleep(void *a, int p) { pause("bad", 1); }
void tq_net_sleep(void) { NET_TASK_INIT(&t, 0, net_sleep, NULL); taskqueue_enqueue(taskqueue_thread, &t); pause("w", 5); }
void tq_unset(void) { static struct task z; taskqueue_enqueue(taskqueue_thread, &z); }
static void reader(void *a) { struct epoch_tracker et; NET_EPOCH_ENTER(et); note(1); while (!stop_reader) { critical_enter(); critical_exit(); DELAY(10); } note(2); NET_EPOCH_EXIT(et); }
static void ecb(epoch_context_t x) { note(9); }
void ep_reader(void) { struct thread *td; kthread_add(reader, NULL, NULL, &td, 0, 0, "reader"); while (nlog == 0) pause("w", 1); }
static void stopper(void *a) { stop_reader = 1; }
long ep_wait(void) { co_setup(); ep_reader(); callout_reset(&c, 10, stopper, NULL); epoch_wait_preempt(net_epoch_preempt); note(3); return (log_[1] * 10 + log_[2]); }
long ep_call(void) { struct epoch_tracker et; NET_EPOCH_ENTER(et); epoch_call(net_epoch_preempt, ecb, &ectx); DELAY(100000); for (int i = 0; i < 1000; i++) critical_enter(), critical_exit();
    int early = nlog; NET_EPOCH_EXIT(et); epoch_drain_callbacks(net_epoch_preempt); return (early * 10 + nlog); }
void ep_sleep(void) { struct epoch_tracker et; NET_EPOCH_ENTER(et); pause("bad", 1); }
void ep_wait_inside(void) { struct epoch_tracker et; NET_EPOCH_ENTER(et); epoch_wait_preempt(net_epoch_preempt); }
void ep_unbalanced(void) { struct epoch_tracker et; memset(&et, 0, sizeof et); et.et_td = curthread; NET_EPOCH_EXIT(et); }
void ep_assert(void) { NET_EPOCH_ASSERT(); }
void ep_return(void *a) { struct epoch_tracker *et = malloc(sizeof *et, M_SCRATCH, M_WAITOK); epoch_enter_preempt(net_epoch_preempt, et); }
void ep_exit(void) { struct thread *td; kthread_add(ep_return, NULL, NULL, &td, 0, 0, "r"); pause("w", 1); }
static void ev1(void *a, int x) { note((int)(uintptr_t)a + x); }
long events(void) { eventhandler_tag a = EVENTHANDLER_REGISTER(shutdown_final, ev1, (void *)200, 20), b = EVENTHANDLER_REGISTER(shutdown_final, ev1, (void *)100, 10);
    EVENTHANDLER_INVOKE(shutdown_final, 3); EVENTHANDLER_DEREGISTER(shutdown_final, a); EVENTHANDLER_INVOKE(shutdown_final, 4); EVENTHANDLER_DEREGISTER(shutdown_final, b);
    EVENTHANDLER_INVOKE(shutdown_final, 5); return (nlog * 1000000 + log_[0] * 1000 + log_[1]); }
void overflow(int d) { volatile char big[4096]; big[0] = d; overflow(d + 1); big[1] = big[0]; }
void null_(void) { *(volatile int *)8 = 1; }
int divide(int a) { return (100 / a); }
void abort_(void) { __builtin_trap(); }
void panics(void) { panic("out of %s: %d", "luck", 13); }
void asserts(void) { KASSERT(nlog == 99, ("nlog is %d", nlog)); }
long clock_(void) { sbintime_t a = sbinuptime(); int t0 = ticks; pause("w", hz * 3); return ((sbinuptime() - a) / SBT_1MS * 10000 + (ticks - t0)); }
long prints(void) { char b[128]; int n = snprintf(b, sizeof b, "%d %u %x %#lx %s %c %5d|%-5d|%05d %p %.3s %jd %zu %hhd %%", -5, 7u, 255, 0x1234567890l, "str", 'z', 42, 42, 42, (void *)0x10, "abcdef", (intmax_t)-9, (size_t)8, 300);
    printf("%s\n", b); printf("%b %6D\n", 5, "\20\1ONE\2TWO\3THREE", "\1\2\3\4\5\6", ":"); log(3, "logged %d %d %d %d %d %d %d\n", 1, 2, 3, 4, 5, 6, 7); return (n); }
"#;

fn report(func: &str) -> String {
    panic_of(SRC, func)
}

fn value(func: &str) -> u64 {
    let k = boot_with("scratch", SRC);
    let v = k.call("scratch", func, [0; 4]);
    k.kldunload("scratch").unwrap();
    k.shutdown();
    v
}

#[test]
fn callouts_fire_in_order_of_time() {
    let k = boot_with("scratch", SRC);
    assert_eq!(k.call("scratch", "co_order", [0; 4]), 1);
    let log: Vec<u64> = (0..3)
        .map(|i| k.call("scratch", "logged", [i, 0, 0, 0]))
        .collect();
    assert_eq!(log, [1, 2, 3]);
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn the_clock_stands_still_until_it_is_let_go() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "co_periodic", [0; 4]);
    k.run_until_idle();
    assert_eq!(k.call("scratch", "nlogged", [0; 4]), 0);
    k.run_for(2 * SBT_1S + 500 * SBT_1MS);
    assert_eq!(k.call("scratch", "nlogged", [0; 4]), 2);
    k.run_for(10 * SBT_1S);
    assert_eq!(k.call("scratch", "nlogged", [0; 4]), 5);
    let t: Vec<i64> = (0..5)
        .map(|i| i64::from(k.call("scratch", "logged", [i, 0, 0, 0]) as i32))
        .collect();
    assert!(
        t.windows(2).all(|w| (1000..1003).contains(&(w[1] - w[0]))),
        "{t:?}"
    );
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

#[test]
fn callout_stop_says_what_it_found() {
    // Not armed: -1; reset of an armed one: 1; stop: 1; nothing ran.
    assert_eq!(value("co_stop"), 110);
}

#[test]
fn callout_drain_waits_for_the_function() {
    assert_eq!(value("co_drain"), 2);
}

#[test]
fn callout_stop_under_its_lock_is_final() {
    assert_eq!(value("co_mtx"), 11);
}

#[test]
fn callout_misuse_is_found() {
    assert!(report("co_sleep").contains("sleeping is prohibited"));
    assert!(report("co_drain_locked").contains("callout_drain"));
    assert!(report("co_nolock").contains("without the callout's lock held"));
}

#[test]
fn tasks_run_by_priority_once_with_their_count() {
    assert_eq!(value("tq_run"), 2011031);
}

#[test]
fn a_cancelled_task_does_not_run() {
    assert_eq!(value("tq_cancel"), 20);
}

#[test]
fn timeout_tasks_run_late_or_not_at_all() {
    let v = value("tq_timeout");
    assert_eq!(v % 100, 11);
    assert!((1000..1010).contains(&(v / 100)), "{v}");
}

#[test]
fn taskqueue_misuse_is_found() {
    assert!(report("tq_self").contains("taskqueue_drain of a task from itself"));
    assert!(report("tq_net_sleep").contains("sleeping in epoch"));
    assert!(report("tq_unset").contains("task with no function"));
    let k = boot_with("scratch", SRC);
    k.call("scratch", "tq_keep", [0; 4]);
    let r = k.shutdown_report();
    assert!(
        r.leaks.iter().any(|l| l.contains("taskqueue \"scratch\"")),
        "{:?}",
        r.leaks
    );
    assert!(
        r.leaks.iter().any(|l| l.contains("thread \"scratch tq\"")),
        "{:?}",
        r.leaks
    );
}

#[test]
fn epoch_wait_waits_for_readers_and_callbacks_come_after() {
    assert_eq!(value("ep_wait"), 23);
    assert_eq!(value("ep_call"), 1);
}

#[test]
fn epoch_misuse_is_found() {
    assert!(report("ep_sleep").contains("sleeping in epoch \"Net preemptible\""));
    assert!(report("ep_wait_inside").contains("epoch_wait in the epoch waited for"));
    assert!(report("ep_unbalanced").contains("no matching epoch_enter"));
    assert!(report("ep_assert").contains("Assertion in_epoch(net_epoch_preempt) failed"));
    assert!(report("ep_exit").contains("thread exit in epoch"));
}

#[test]
fn event_handlers_run_by_priority_until_removed() {
    assert_eq!(value("events"), 3_103_203);
}

#[test]
fn faults_of_modules_are_reported_by_function() {
    let r = report("null_");
    assert!(
        r.contains("page fault: address 0x8 (null pointer), in scratch.ko: null_+"),
        "{r}"
    );
    let r = report("overflow");
    assert!(
        r.contains("kernel stack overflow in scratch.ko: overflow+"),
        "{r}"
    );
    let r = report("divide");
    assert!(r.contains("divide error in scratch.ko: divide+"), "{r}");
    let r = report("abort_");
    assert!(
        r.contains("illegal instruction") && r.contains("abort_+"),
        "{r}"
    );
    assert!(report("panics").contains("panic: out of luck: 13"));
    assert!(report("asserts").contains("nlog is 0"));
}

#[test]
fn a_report_names_seed_time_and_thread() {
    let ko = idle_module("scratch", SRC);
    let k = boot(Config::seed(0xfeed));
    k.kldload(&ko).unwrap();
    let api = k.api();
    let r = k.expect_panic(move || api.call("scratch", "panics", [0; 4]));
    assert!(
        r.contains("seed 0xfeed") && r.contains("thread doomed"),
        "{r}"
    );
}

#[test]
fn seconds_of_virtual_time_take_no_time() {
    let start = std::time::Instant::now();
    let v = value("clock_");
    assert!((3000..3010).contains(&(v / 10000)), "{v}");
    assert!((3000..3010).contains(&(v % 10000)), "{v}");
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn printf_speaks_the_kernels_dialect() {
    let k = boot_with("scratch", SRC);
    k.call("scratch", "prints", [0; 4]);
    let con = k.console();
    assert_eq!(
        con[0],
        "-5 7 ff 0x1234567890 str z    42|42   |00042 0x10 abc -9 8 44 %"
    );
    assert_eq!(con[1], "5<ONE,THREE> 01:02:03:04:05:06");
    assert_eq!(con[2], "logged 1 2 3 4 5 6 7");
    k.kldunload("scratch").unwrap();
    k.shutdown();
}

fn race(seed: u64, preempt: u32) -> (Vec<u8>, u64) {
    let k = boot(Config::seed(seed).preempt(preempt));
    let log = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    for i in 0..4_u8 {
        let log = log.clone();
        sched::spawn_kthread("racer", move || {
            for _ in 0..50 {
                log.borrow_mut().push(i);
                for _ in 0..16 {
                    sched::yield_point();
                }
            }
        });
    }
    k.run_until_idle();
    let r = k.shutdown();
    (log.take(), r.trace)
}

#[test]
fn a_seed_is_a_schedule() {
    let a = race(5, 16);
    assert_eq!(a, race(5, 16));
    assert_ne!(a, race(6, 16));
    let calm = race(5, 0).0;
    assert!(
        calm.chunks(50).all(|c| c.iter().all(|&x| x == c[0])),
        "no preemption, no interleaving"
    );
}

#[test]
fn a_panic_of_a_closure_reaches_the_test() {
    let k = boot(Config::default());
    let api = k.api();
    let err = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        api.exec(|| assert_eq!(1 + 1, 3, "sums"));
    }))
    .expect_err("the closure panicked");
    let text = err.downcast_ref::<String>().expect("a message");
    assert!(text.contains("sums"), "{text}");
    drop(k);
}

#[test]
fn what_hangs_is_reported() {
    let k = boot(Config {
        hang: 60 * SBT_1S,
        ..Config::default()
    });
    let err = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        k.exec(|| {
            loop {
                sched::sleep_for(SBT_1S, "snooze");
            }
        });
    }))
    .expect_err("hung");
    let text = err.downcast_ref::<String>().expect("a report");
    assert!(
        text.contains("hung: too much virtual time passed") && text.contains("\"snooze\""),
        "{text}"
    );
    drop(k);
}

#[test]
fn switches_are_cheap() {
    let k = boot(Config::default());
    let start = std::time::Instant::now();
    const N: u32 = 100_000;
    for _ in 0..2 {
        sched::spawn_kthread("pingpong", || {
            for _ in 0..N {
                sched::yield_now();
            }
        });
    }
    k.run_until_idle();
    let each = start.elapsed() / (2 * N);
    assert!(each.as_micros() < 10, "{each:?}");
    k.shutdown();
}
