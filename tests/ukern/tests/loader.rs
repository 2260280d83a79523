//! Loading and unloading modules.

mod common;

use common::{boot_with, idle_module, module, module_with, panic_of};
use ukern::{Config, boot, loader};

const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;

#[test]
fn a_module_loads_runs_and_unloads() {
    let k = boot_with("hello", "int add(int a, int b) { return a + b; }");
    assert_eq!(k.call("hello.ko", "add", [2, 40, 0, 0]), 42);
    assert_eq!(k.kldunload("hello"), Ok(()));
    assert!(loader::loaded().is_empty());
    k.shutdown();
}

#[test]
fn a_module_loads_and_unloads_100_times_and_leaves_nothing() {
    let ko = module(
        "again",
        r#"
static void *p; static struct mtx m; static counter_u64_t c; static struct taskqueue *tq;
static int x = 5;
SYSCTL_NODE(_hw, OID_AUTO, again, CTLFLAG_RW | CTLFLAG_MPSAFE, 0, "");
SYSCTL_INT(_hw_again, OID_AUTO, x, CTLFLAG_RW, &x, 0, "");
MTX_SYSINIT(again, &m, "again", MTX_DEF);
static int ev(module_t mod, int what, void *arg) {
    switch (what) {
    case MOD_LOAD:
        p = malloc(100, M_SCRATCH, M_WAITOK); c = counter_u64_alloc(M_WAITOK);
        tq = taskqueue_create("again", M_WAITOK, taskqueue_thread_enqueue, &tq);
        return (taskqueue_start_threads(&tq, 2, PWAIT, "again taskq"));
    case MOD_UNLOAD:
        taskqueue_free(tq); counter_u64_free(c); free(p, M_SCRATCH);
        return (0);
    }
    return (EOPNOTSUPP);
}
static moduledata_t md = { "again", ev, NULL };
DECLARE_MODULE(again, md, SI_SUB_PSEUDO, SI_ORDER_ANY);
MODULE_VERSION(again, 1);
"#,
    );
    let k = boot(Config::default());
    for _ in 0..100 {
        assert_eq!(k.kldload(&ko), Ok(()), "{:?}", k.console());
        assert_eq!(k.sysctl_get("hw.again.x").unwrap().as_i64(), Some(5));
        assert_eq!(k.kldunload("again"), Ok(()));
        assert_eq!(k.sysctl_get("hw.again.x"), Err(ENOENT));
    }
    k.shutdown();
}

#[test]
fn undefined_symbols_are_refused_and_named() {
    let ko = idle_module(
        "undef",
        "int no_such_a(void); extern int no_such_b; int f(void) { return no_such_a() + no_such_b; }",
    );
    let k = boot(Config::default());
    assert_eq!(k.kldload(&ko), Err(ENOEXEC));
    let con = k.console().join("\n");
    assert!(
        con.contains("symbol no_such_a undefined") && con.contains("symbol no_such_b undefined"),
        "{con}"
    );
    k.shutdown();
}

#[test]
fn a_weak_undefined_symbol_is_null() {
    let k = boot_with(
        "weak",
        "extern int no_such(void) __attribute__((weak)); int f(void) { return no_such == NULL; }",
    );
    assert_eq!(k.call("weak", "f", [0; 4]), 1);
    k.kldunload("weak").unwrap();
    k.shutdown();
}

#[test]
fn a_32_bit_absolute_relocation_is_refused() {
    let ko = idle_module("abs32", r#"int v; __asm(".data\n.long v\n.text");"#);
    let k = boot(Config::default());
    assert_eq!(k.kldload(&ko), Err(ENOEXEC));
    assert!(
        k.console()
            .iter()
            .any(|l| l.contains("unexpected relocation type 10")),
        "{:?}",
        k.console()
    );
    k.shutdown();
}

#[test]
fn a_got_relocation_is_refused() {
    let ko = module_with(
        "got",
        &format!(
            "extern int hz; int f(void) {{ return hz; }}\n{}",
            common::IDLE.replace("NAME", "got")
        ),
        &["-fPIC", "-mcmodel=small"],
    );
    let k = boot(Config::default());
    assert_eq!(k.kldload(&ko), Err(ENOEXEC));
    assert!(
        k.console()
            .iter()
            .any(|l| l.contains("unexpected relocation type")),
        "{:?}",
        k.console()
    );
    k.shutdown();
}

#[test]
fn dependencies_are_needed_ordered_and_block_unloading() {
    let base = idle_module("base", "int base_value(void) { return 7; }");
    let user = idle_module(
        "user",
        "MODULE_DEPEND(user, base, 1, 1, 1); int base_value(void); int f(void) { return base_value() * 6; }",
    );
    let k = boot(Config::default());
    assert_eq!(k.kldload(&user), Err(ENOENT));
    assert!(
        k.console()
            .iter()
            .any(|l| l.contains("depends on base - not available")),
        "{:?}",
        k.console()
    );
    k.kldload(&base).unwrap();
    k.kldload(&user).unwrap();
    assert_eq!(k.call("user", "f", [0; 4]), 42);
    assert_eq!(k.kldunload("base"), Err(EBUSY));
    k.kldunload("user").unwrap();
    k.kldunload("base").unwrap();
    k.shutdown();
}

#[test]
fn a_dependency_of_another_version_does_not_count() {
    let base = idle_module("base", "");
    let user = idle_module("user", "MODULE_DEPEND(user, base, 2, 2, 3);");
    let k = boot(Config::default());
    k.kldload(&base).unwrap();
    assert_eq!(k.kldload(&user), Err(ENOENT));
    k.kldunload("base").unwrap();
    k.shutdown();
}

#[test]
fn a_module_for_another_kernel_is_refused() {
    let ko = module_with(
        "old",
        &common::IDLE.replace("NAME", "old"),
        &["-U__FreeBSD_version", "-D__FreeBSD_version=1600000"],
    );
    let k = boot(Config::default());
    assert_eq!(k.kldload(&ko), Err(ENOENT));
    assert!(
        k.console().iter().any(|l| l.contains("depends on kernel")),
        "{:?}",
        k.console()
    );
    k.shutdown();
}

#[test]
fn symbols_of_a_module_not_depended_on_are_not_seen() {
    let base = idle_module("base", "int base_value(void) { return 7; }");
    let user = idle_module(
        "user",
        "int base_value(void); int f(void) { return base_value(); }",
    );
    let k = boot(Config::default());
    k.kldload(&base).unwrap();
    assert_eq!(k.kldload(&user), Err(ENOEXEC));
    k.kldunload("base").unwrap();
    k.shutdown();
}

#[test]
fn sysinits_run_in_order_and_sysuninits_in_reverse() {
    let k = boot_with(
        "order",
        r#"
static void say(const void *s) { printf("%s\n", (const char *)s); }
SYSINIT(c, SI_SUB_DRIVERS, SI_ORDER_FIRST, say, "c");
SYSINIT(a, SI_SUB_KLD, SI_ORDER_SECOND, say, "a");
SYSINIT(b, SI_SUB_KLD, SI_ORDER_ANY, say, "b");
SYSUNINIT(x, SI_SUB_KLD, SI_ORDER_SECOND, say, "x");
SYSUNINIT(y, SI_SUB_DRIVERS, SI_ORDER_FIRST, say, "y");
"#,
    );
    k.kldunload("order").unwrap();
    assert_eq!(k.console(), ["a", "b", "c", "y", "x"]);
    k.shutdown();
}

#[test]
fn a_failed_mod_load_is_undone_and_enoexec() {
    let ko = module(
        "fails",
        r#"
static int ev(module_t m, int what, void *arg) { printf("event %d\n", what); return (what == MOD_LOAD ? ENXIO : 0); }
static moduledata_t md = { "fails", ev, NULL };
DECLARE_MODULE(fails, md, SI_SUB_PSEUDO, SI_ORDER_ANY);
"#,
    );
    let k = boot(Config::default());
    assert_eq!(k.kldload(&ko), Err(ENOEXEC));
    let con = k.console();
    assert_eq!(con[..2], ["event 0", "event 1"]);
    assert!(
        con[2].contains("MOD_LOAD (fails") && con[2].ends_with("error 6"),
        "{con:?}"
    );
    assert!(loader::loaded().is_empty());
    k.shutdown();
}

#[test]
fn quiesce_and_unload_can_refuse() {
    let ko = module(
        "veto",
        r#"
int busy = 1;
static int ev(module_t m, int what, void *arg) {
    if (what == MOD_QUIESCE) return (busy == 1 ? EBUSY : 0);
    if (what == MOD_UNLOAD) return (busy == 2 ? EPERM : 0);
    return (0);
}
void set_busy(int v) { busy = v; }
static moduledata_t md = { "veto", ev, NULL };
DECLARE_MODULE(veto, md, SI_SUB_PSEUDO, SI_ORDER_ANY);
"#,
    );
    let k = boot(Config::default());
    k.kldload(&ko).unwrap();
    assert_eq!(k.kldload(&ko), Err(EEXIST));
    assert_eq!(k.kldunload("veto"), Err(EBUSY));
    k.call("veto", "set_busy", [2, 0, 0, 0]);
    assert_eq!(k.kldunload("veto"), Err(1));
    k.call("veto", "set_busy", [0, 0, 0, 0]);
    assert_eq!(k.kldunload("veto"), Ok(()));
    assert_eq!(k.kldunload("veto"), Err(ENOENT));
    k.shutdown();
}

#[test]
fn damaged_files_are_refused() {
    let ko = idle_module("whole", "int f(void) { return 1; }");
    let data = std::fs::read(&ko).unwrap();
    let k = boot(Config::default());
    let dir = ko.parent().unwrap();
    for (i, cut) in [0, 3, 63, data.len() / 3, data.len() - 9]
        .into_iter()
        .enumerate()
    {
        let p = dir.join(format!("cut{i}.ko"));
        std::fs::write(&p, &data[..cut]).unwrap();
        assert_eq!(k.kldload(&p), Err(ENOEXEC), "cut at {cut}");
    }
    for (at, v) in [(4, 1), (16, 3), (18, 3)] {
        let mut d = data.clone();
        d[at] = v;
        let p = dir.join(format!("set{at}.ko"));
        std::fs::write(&p, &d).unwrap();
        assert_eq!(k.kldload(&p), Err(ENOEXEC), "byte {at}");
    }
    assert_eq!(k.kldload(dir.join("nowhere.ko")), Err(ENOENT));
    k.shutdown();
}

#[test]
fn linker_sets_are_found() {
    let k = boot_with(
        "sets",
        r#"
static int a = 3, b = 4;
DATA_SET(scratch_set, a); DATA_SET(scratch_set, b);
SET_DECLARE(scratch_set, int);
int f(void) { int **p, s = 0; SET_FOREACH(p, scratch_set) s = s * 10 + **p; return (s * 100 + SET_COUNT(scratch_set)); }
"#,
    );
    assert_eq!(k.call("sets", "f", [0; 4]), 3402);
    k.kldunload("sets").unwrap();
    k.shutdown();
}

#[test]
fn vnet_variables_have_an_instance_per_stack() {
    let k = boot_with(
        "vn",
        r#"
VNET_DEFINE_STATIC(int, counter) = 10;
#define V_counter VNET(counter)
int bump(struct vnet *v) { CURVNET_SET(v); V_counter++; int r = V_counter; CURVNET_RESTORE(); return (r); }
int zero(void) { return (vnet0->vnet_magic_n == VNET_MAGIC_N); }
"#,
    );
    let v0 = ukern::vnet::vnet0() as u64;
    let v1 = k.exec(|| ukern::vnet::alloc() as u64);
    assert_eq!(k.call("vn", "zero", [0; 4]), 1);
    assert_eq!(k.call("vn", "bump", [v0, 0, 0, 0]), 11);
    assert_eq!(k.call("vn", "bump", [v0, 0, 0, 0]), 12);
    assert_eq!(k.call("vn", "bump", [v1, 0, 0, 0]), 11);
    k.kldunload("vn").unwrap();
    k.shutdown();
}

#[test]
fn vnet_variables_need_a_current_vnet() {
    let r = panic_of(
        "VNET_DEFINE_STATIC(int, v); int f(void) { return VNET(v); }",
        "f",
    );
    assert!(
        r.contains("page fault") && r.contains("null pointer") && r.contains("f+"),
        "{r}"
    );
}

#[test]
fn code_of_an_unloaded_module_is_gone() {
    let k = boot_with("gone", "int f(void) { return 1; }");
    let f = loader::symbol("gone", "f").unwrap();
    k.kldunload("gone").unwrap();
    let r = k.expect_panic(move || {
        // SAFETY: not safe at all, which is what the kernel must notice.
        let f: extern "C" fn() = unsafe { std::mem::transmute(f) };
        f();
    });
    assert!(r.contains("gone.ko (unloaded)"), "{r}");
}

/// A module whose MOD_UNLOAD forgets something.
fn unload_panics(decl: &str, load: &str) -> String {
    let ko = module(
        "sloppy",
        &format!(
            "{decl}\nstatic int ev(module_t m, int what, void *arg) {{ if (what == MOD_LOAD) {{ {load} }} return (0); }}
static moduledata_t md = {{ \"sloppy\", ev, NULL }};
DECLARE_MODULE(sloppy, md, SI_SUB_PSEUDO, SI_ORDER_ANY);"
        ),
    );
    let k = boot(Config::default());
    k.kldload(&ko).unwrap();
    let api = k.api();
    k.expect_panic(move || api.kldunload("sloppy"))
}

#[test]
fn unloading_with_a_thread_alive_is_found() {
    let r = unload_panics(
        "static void main_(void *a) { for (;;) pause(\"x\", hz); }",
        "struct thread *td; kthread_add(main_, NULL, NULL, &td, 0, 0, \"worker%d\", 3);",
    );
    assert!(r.contains("while its thread \"worker3\" still runs"), "{r}");
}

#[test]
fn unloading_with_an_armed_callout_is_found() {
    let r = unload_panics(
        "static struct callout c; static void fire(void *a) {}",
        "callout_init(&c, 1); callout_reset(&c, hz, fire, NULL);",
    );
    assert!(r.contains("with a pending callout of its own"), "{r}");
}

#[test]
fn unloading_with_an_event_handler_is_found() {
    let r = unload_panics(
        "static void h(void *a) {}",
        "EVENTHANDLER_REGISTER(shutdown_final, h, NULL, 0);",
    );
    assert!(
        r.contains("handler of event \"shutdown_final\" still registered"),
        "{r}"
    );
}

#[test]
fn unloading_with_an_epoch_callback_is_found() {
    let k = boot_with(
        "sloppy",
        "static struct epoch_context ctx; static void cb(epoch_context_t c) {}
void later(void) { epoch_call(net_epoch_preempt, cb, &ctx); }",
    );
    let api = k.api();
    let r = k.expect_panic(move || {
        // A reader that never leaves keeps the callback waiting.
        ukern::sched::spawn_kthread("reader", || {
            ukern::epoch::enter(ukern::epoch::net_epoch(), 1);
            loop {
                ukern::sched::yield_now();
            }
        });
        ukern::sched::yield_now();
        ukern::sched::yield_now();
        api.call("sloppy", "later", [0; 4]);
        api.kldunload("sloppy")
    });
    assert!(
        r.contains("with an epoch callback of its own pending"),
        "{r}"
    );
}

#[test]
fn unloading_with_a_sysctl_is_found() {
    let r = unload_panics(
        "static int v; static struct sysctl_ctx_list ctx;",
        "sysctl_ctx_init(&ctx); SYSCTL_ADD_INT(&ctx, SYSCTL_STATIC_CHILDREN(_hw), OID_AUTO, \"left\", CTLFLAG_RD, &v, 0, \"\");",
    );
    assert!(r.contains("sysctl hw.left still there"), "{r}");
}

#[test]
fn a_module_left_loaded_is_a_leak() {
    let k = boot_with("left", "");
    let r = k.shutdown_report();
    assert!(
        r.leaks
            .iter()
            .any(|l| l.contains("left.ko is still loaded")),
        "{:?}",
        r.leaks
    );
}
