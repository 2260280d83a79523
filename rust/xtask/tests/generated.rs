//! What `sys/modules` keeps for a build without bindgen and cargo, and how its being old is told.

mod common;

use common::Bench;
use xtask::generated::{File, out_dir, stale};
use xtask::json::{Reader, Value};
use xtask::tree::Tree;

#[test]
fn cargo_says_where_the_declarations_are() {
    let said = concat!(
        "{\"reason\":\"build-script-executed\",\"package_id\":\"path+file:///a/sys#toehold-sysx@1\",\"out_dir\":\"/no\"}\n",
        "{\"reason\":\"compiler-artifact\",\"package_id\":\"path+file:///a/sys#toehold-sys@1\",\"out_dir\":\"/no\"}\n",
        "{\"reason\":\"build-script-executed\",\"package_id\":\"path+file:///a/sys#toehold-sys@0.1.0\",\"env\":[],\"out_dir\":\"/out\"}\n",
    );
    assert_eq!(out_dir(said), Some("/out".into()));
    assert_eq!(out_dir("error: something\n"), None);
}

#[test]
fn a_file_is_old_if_it_says_something_else() {
    let bench = Bench::new();
    let tree = Tree {
        root: bench.dir.clone(),
    };
    let mut file = File {
        path: "a.rs".into(),
        text: "// cksum 1\nfn a(b: u8, c: u8) {}\n".into(),
        formatted: true,
    };
    assert!(stale(&tree, &file), "it is not there");
    bench.file(
        "a.rs",
        "// cksum 1\nfn a(\n    b: u8,\n    c: u8,\n) {\n}\n",
    );
    assert!(!stale(&tree, &file), "another layout");
    file.formatted = false;
    assert!(stale(&tree, &file), "what nobody lays out must be the same");
    file.formatted = true;
    bench.file("a.rs", "// cksum 2\nfn a(b: u8, c: u8) {}\n");
    assert!(stale(&tree, &file), "another header");
}

#[test]
fn json_keeps_the_order_of_keys_and_refuses_what_is_none() {
    let value = Reader::new(r#" {"b": [1, {"x": "a\"\\\n"}, null], "a": -1.5e3} "#)
        .value()
        .expect("JSON");
    let Value::Object(pairs) = &value else {
        panic!("{value:?}")
    };
    let keys: Vec<&str> = pairs.iter().map(|(k, _)| k.as_str()).collect();
    assert_eq!(keys, ["b", "a"]);
    assert_eq!(value.text("a"), Some("-1.5e3"));
    for bad in [
        "",
        "{",
        "[1",
        "{\"a\" 1}",
        "\"a",
        "[1 2]",
        "{\"a\":}",
        "\"\\",
    ] {
        assert!(Reader::new(bad).value().is_err(), "{bad}");
    }
}
