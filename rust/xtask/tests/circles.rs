//! Which files count as importing each other.

use std::collections::{BTreeMap, BTreeSet};

use xtask::circles::{check, compare, of};
use xtask::tree::Tree;

fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let files: BTreeMap<String, String> = files
        .iter()
        .map(|(module, text)| ((*module).to_owned(), (*text).to_owned()))
        .collect();
    of(&files)
        .into_iter()
        .map(|(a, b)| format!("{a} {b}"))
        .collect()
}

#[test]
fn files_that_import_each_other_are_found_however_it_is_written() {
    for back in [
        "use crate::a::X;",
        "use crate::{b::Y, a::{self, X}};",
        "use super::a;",
        "fn f() { crate::a::g() }",
        "pub(crate) struct S(crate::a::X);",
    ] {
        let found = circles(&[
            ("", "mod a; mod b;"),
            ("a", "use crate::b::Y;"),
            ("b", back),
        ]);
        assert_eq!(found, ["a b"], "{back}");
    }
    let found = circles(&[("a", "mod c;\nuse c::Z;"), ("a::c", "use super::X;")]);
    assert_eq!(found, ["a a::c"]);
    let found = circles(&[("", "use a::X;"), ("a", "use crate::Y;")]);
    assert_eq!(found, ["(root) a"]);
}

#[test]
fn one_direction_is_no_circle_nor_is_showing_a_name_again() {
    for back in [
        "",
        "use core::a::X;",
        "// use crate::a::X;",
        "const S: &str = \"crate::a::X\";",
        "pub use crate::a::X;",
        "pub(crate) use crate::a::X;",
    ] {
        let found = circles(&[("a", "use crate::b::Y;"), ("b", back)]);
        assert!(found.is_empty(), "{back}: {found:?}");
    }
    let found = circles(&[("", "pub use a::X;"), ("a", "use crate::Y;")]);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_list_may_only_shrink() {
    let found = BTreeSet::from(["rust/x a b".to_owned()]);
    assert_eq!(compare(&found, "# those left\nrust/x a b\n"), Ok(()));
    let said = compare(&found, "").expect_err("a new one");
    assert!(
        said.contains("rust/x a b: these import each other"),
        "{said}"
    );
    let said = compare(&BTreeSet::new(), "rust/x a b\n").expect_err("an old line");
    assert!(said.contains("rust/x a b: no circle now"), "{said}");
}

#[test]
fn the_tree_has_the_circles_of_the_list() {
    assert_eq!(check(&Tree::find().expect("tree")), Ok(()));
}
