//! Loading and unloading modules.

mod common;

use common::{boot_with, idle_module, module};
use ukern::Config;

#[test]
fn a_module_loads_runs_and_unloads() {
    let k = boot_with("hello", r#"int add(int a, int b) { return a + b; }"#);
    assert_eq!(k.call("hello.ko", "add", [2, 40, 0, 0]), 42);
    assert_eq!(k.kldunload("hello"), Ok(()));
    assert!(ukern::loader::loaded().is_empty());
    k.shutdown();
}
