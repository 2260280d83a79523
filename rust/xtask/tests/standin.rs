//! The comparison of stand-in headers with a tree's: what is the same passes, each planted
//! difference is found and named. Both sets of headers are a few lines in a scratch folder.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;

use common::Bench;
use xtask::run::Real;
use xtask::standin::compiler::Compiler;
use xtask::standin::{self, Check, Count};

const STANDIN: &str = "\
#ifndef GUARD_H
#define GUARD_H
#include <base.h>
#define A_REG 0x7d10
#define S_X 4
#define M_X 0xfU
#define V_X(x) ((x) << S_X)
#define G_X(x) (((x) >> S_X) & M_X)
#define X_LOCK(sc) take(&(sc)->lock)
#define OWN_MACRO 9 /* t5sim */
enum { COLD, WARM = 4, HOT };
typedef int (*handler_t)(struct sc *, const u_char *, int);
LIST_OF(list, item);
struct item {
	u_int flags;
	unsigned low:3;
	unsigned high:1;
	int own; /* t5sim: not FreeBSD's */
	struct { u_int start; u_int size; } range;
	LIST_OF(, item) chain;
	char name[16];
	handler_t handler;
	u_char tail[];
};
struct own_type { int x; }; /* t5sim */
struct sc { int lock; struct item *items; };
extern struct item first_item[1];
int start(struct sc *, const char *);
void *room(struct sc *, int);
static inline int warm(struct sc *sc) { return (sc->lock == WARM); }
#endif
";

/// The same in other words: other order, more members, macros of other text.
const TREE: &str = "\
#ifndef GUARD2_H
#define GUARD2_H
#include <base.h>
#define WARM 4
typedef int (*handler_t)(struct sc *, const u_char *, int);
enum { COLD, UNUSED, LUKEWARM };
enum { HOT = 5 };
struct item;
struct list { struct item *first; u_char **last; };
struct item {
	int more;
	handler_t handler;
	char name[16];
	u_int flags;
	unsigned low : 3, high : 1;
	struct { struct item *first; u_char **last; } chain;
	struct { long more; u_int start, size; } range;
	unsigned char tail[];
};
struct sc { struct item *items; long more; int lock; };
static inline int warm(struct sc *sc) { return 0; }
void *room(struct sc *sc, int n);
int start(struct sc *sc, const char *name);
extern struct item first_item[1];
#define A_REG (0x7d00 + 16)
#define S_X 4
#define M_X 15U
#define V_X(x) ((x) * 16)
#define G_X(x) (((x) >> 4) % 16)
#define X_LOCK(_sc) take (&((_sc)->lock))
#endif
";

const BASE: &str = "\
#ifndef BASE_H
#define BASE_H
typedef unsigned int u_int;
typedef unsigned char u_char;
struct sc;
#define LIST_OF(name, type) struct name { struct type *first; u_char **last; }
#endif
";

/// Compares the two texts.
fn compare(standin: &str, tree: &str) -> xtask::Result<(Vec<String>, Count)> {
    let bench = Bench::new();
    bench.file("standin/dev/card/card.h", standin);
    bench.file("tree/dev/card/card.h", tree);
    bench.file("common/base.h", BASE);
    let compiler = |name: &str| {
        let mut flags: Vec<OsString> = vec!["--target=x86_64-unknown-freebsd12.1".into()];
        flags.push("-nostdinc".into());
        for dir in [name, "common"] {
            flags.push("-I".into());
            flags.push(bench.dir.join(dir).into());
        }
        Compiler {
            runner: &Real,
            flags,
            scratch: bench.dir.clone(),
        }
    };
    let check = Check {
        dir: bench.dir.join("standin"),
        first: &["base.h"],
        standin: compiler("standin"),
        real: compiler("tree"),
    };
    check.run()
}

/// The one difference there is when `from` becomes `to` in the tree's header.
#[track_caller]
fn planted(from: &str, to: &str, wanted: &str) {
    assert!(TREE.contains(from), "{from}");
    let (faults, _) = compare(STANDIN, &TREE.replacen(from, to, 1)).expect("compiles");
    let [fault] = faults.as_slice() else {
        panic!("one difference was planted: {faults:#?}")
    };
    assert!(fault.starts_with("dev/card/card.h:"), "{fault}");
    assert!(fault.contains(wanted), "wanted `{wanted}` in: {fault}");
}

#[test]
fn the_same_in_other_words_passes() {
    let (faults, count) = compare(STANDIN, TREE).expect("compiles");
    assert_eq!(faults, [""; 0]);
    let wanted = Count {
        declarations: 25,
        values: 5,
        expansions: 1,
        own: 4,
    };
    assert_eq!(count, wanted);
}

#[test]
fn a_member_of_another_type_is_found() {
    planted(
        "\tu_int flags;",
        "\tlong flags;",
        "struct item, member flags (here u_int)",
    );
    planted(
        "char name[16]",
        "char name[15]",
        "struct item, member name (here char[16])",
    );
    planted(
        "int lock; };",
        "short lock; };",
        "struct sc, member lock (here int)",
    );
}

#[test]
fn a_member_that_is_not_there_is_found() {
    planted(
        "long more; u_int start, size;",
        "u_int start;",
        "struct item, member range.size",
    );
    planted(
        "handler_t handler;",
        "handler_t handle;",
        "struct item, member handler",
    );
    let said = "struct item, member chain.last";
    planted("first; u_char **last; } chain;", "first; } chain;", said);
}

#[test]
fn a_bit_field_of_another_width_is_found() {
    planted(
        "low : 3",
        "low : 4",
        "struct item, member low (here 3 bits)",
    );
    planted(
        "low : 3",
        "low : 2",
        "struct item, member low (here 3 bits)",
    );
    planted("high : 1", "high", "struct item, member high (here 1 bits)");
}

#[test]
fn a_type_that_is_not_there_is_found() {
    let (faults, _) = compare(
        STANDIN,
        &TREE.replacen("struct list {", "struct lists {", 1),
    )
    .expect("compiles");
    let all = faults.join("\n");
    assert!(all.contains("struct list:"), "{all}");
}

#[test]
fn another_value_is_found() {
    planted("HOT = 5", "HOT = 6", "constant HOT (here 5)");
    planted("COLD, UNUSED", "UNUSED, COLD", "constant COLD (here 0)");
    planted(
        "0x7d00 + 16",
        "0x7d00 + 8",
        "macro A_REG is 0x7d10 here and 0x7d08 in the tree",
    );
    planted(
        "((x) * 16)",
        "((x) * 8)",
        "macro V_X(1U) is 0x10 here and 0x8 in the tree",
    );
    planted(">> 4) % 16", ">> 4) % 8", "macro G_X(");
    planted(
        "#define S_X 4\n",
        "",
        "macro S_X is 0x4 here and nothing in the tree",
    );
}

#[test]
fn another_text_of_a_macro_that_is_no_number_is_found() {
    planted(
        "take (",
        "leave (",
        "macro X_LOCK expands to `take&th_arg0->lock` here",
    );
    let gone = "#define X_LOCK(_sc) take (&((_sc)->lock))\n";
    planted(gone, "", "`not defined` in the tree");
}

#[test]
fn another_prototype_is_found() {
    let here = "function start (here int (struct sc *, const char *))";
    planted(
        "int start(struct sc *sc, const",
        "int start(struct sc *sc,",
        here,
    );
    planted("int start(", "void start(", here);
    planted("int start(", "int begin(", here);
    planted(
        "int warm(",
        "long warm(",
        "function warm (here int (struct sc *))",
    );
    planted("first_item[1]", "first_item[2]", "variable first_item");
    planted(
        "(*handler_t)(struct sc *,",
        "(*handler_t)(void *,",
        "type handler_t",
    );
}

#[test]
fn an_option_that_the_kernel_has_otherwise_is_found() {
    let bench = Bench::new();
    bench.file(
        "opt_a.h",
        "#ifndef A_H\n#define A_H\n#define VIMAGE 1\n#define SIZE 2\n#endif\n",
    );
    let kernel = |size: &str| {
        let text = format!("#define VIMAGE 1\n#define MORE 1\n#define SIZE {size}\n");
        BTreeMap::from([("opt_a.h".to_owned(), text)])
    };
    assert_eq!(standin::options(&bench.dir, &kernel("2")), Ok(Vec::new()));
    let said = standin::options(&bench.dir, &kernel("3")).expect("headers");
    assert_eq!(
        said,
        ["opt/opt_a.h: the kernel's does not say `#define SIZE 2`"]
    );
    let said = standin::options(&bench.dir, &BTreeMap::new()).expect("headers");
    assert_eq!(said.len(), 2);
}

#[test]
fn a_header_that_is_not_there_is_found() {
    let bench = Bench::new();
    bench.file("standin/dev/card/card.h", "int x;\n");
    bench.file("standin/dev/card/lost.h", "int y;\n");
    bench.file("tree/dev/card/card.h", "int x;\n");
    let compiler = |name: &str| Compiler {
        runner: &Real,
        flags: vec!["-I".into(), bench.dir.join(name).into()],
        scratch: bench.dir.clone(),
    };
    let check = Check {
        dir: bench.dir.join("standin"),
        first: &[],
        standin: compiler("standin"),
        real: compiler("tree"),
    };
    let (faults, _) = check.run().expect("compiles");
    assert_eq!(faults, ["dev/card/lost.h: the tree has no such header"]);
}

#[test]
fn headers_that_do_not_compile_are_no_agreement() {
    let said = compare(STANDIN, &format!("{TREE}\nint broken = ;\n")).expect_err("broken");
    assert!(said.contains("do not compile"), "{said}");
    let said = compare("#define GUARD\n", TREE).expect_err("nothing to compare");
    assert!(said.contains("declares nothing"), "{said}");
}
