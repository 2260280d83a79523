//! Builds against a source tree: what is read out of a tree, and how a wrong one is refused.
//! The trees are a few files in a scratch folder.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::Bench;
use xtask::run::Real;
use xtask::sysdir::config::Config;
use xtask::sysdir::symbols::{Finder, Provider, undefined};
use xtask::sysdir::{Given, Source, generate, revision};

/// A tree in which everything that a build looks at is there, and very small.
fn tree() -> Bench {
    let bench = Bench::new();
    for (name, text) in [
        (
            "sys/param.h",
            "#define __FreeBSD_version 1201000\t/* Master */\n",
        ),
        ("conf/newvers.sh", "TYPE=\"FreeBSD\"\nREVISION=\"12.1\"\n"),
        ("dev/cxgbe/adapter.h", ""),
        (
            "conf/options",
            "# Option name\tfilename\nVIMAGE\t\topt_global.h\nINVARIANTS\topt_global.h\nINET\n\
             TCP_OFFLOAD\topt_inet.h\nRATELIMIT\topt_ratelimit.h\nSIZE\topt_size.h\n\
             DEV_LOOP\topt_loop.h\nOLDNAME = INET\nMAXUSERS\n",
        ),
        ("conf/options.amd64", "HAMMER\topt_cpu.h\n"),
        ("amd64/conf/DEFAULTS", "machine\tamd64\ndevice\tmem\n"),
        (
            "amd64/conf/GENERIC",
            "cpu\tHAMMER\nident\tGENERIC\ninclude \"std.more\"\n\
             options \tVIMAGE\t# jails\noptions\tSIZE=0x10,TCP_OFFLOAD\nnooptions RATELIMIT\n\
             device loop, ether\n",
        ),
        ("conf/std.more", "options INET\noptions RATELIMIT\n"),
        (
            "conf/files",
            "# files\nkern/always.c\tstandard\nkern/inet.c\toptional inet loop | nothing\n\
             kern/off.c\toptional inet !vimage\nkern/size.c\toptional size\n\
             kern/rules.c optional ether \\\n\tcompile-with \"${CC} | x\" no-obj\n\
             kern/gone.c\tstandard\nkern/made_if.m\tstandard\ninclude \"conf/files.more\"\n",
        ),
        ("conf/files.more", "kern/asm.S standard\n"),
        ("conf/files.amd64", "kern/late.c\toptional mem\n"),
        ("tools/makeobjops.awk", MAKEOBJOPS),
        ("tools/vnode_if.awk", "BEGIN { }\n"),
        ("kern/vnode_if.src", ""),
        ("kern/device_if.m", ""),
        ("kern/bus_if.m", ""),
        ("kern/made_if.m", ""),
        ("dev/pci/pci_if.m", ""),
        ("amd64/amd64/genassym.c", "char sign;\n"),
        ("kern/genassym.sh", "echo '#define PC_X 8'\n"),
        ("amd64/include/x.h", ""),
        ("x86/include/y.h", ""),
        ("kern/always.c", ALWAYS),
        ("kern/inet.c", "int inet_fn(void) { return INET_VALUE; }\n"),
        ("kern/off.c", "int off_fn(void) { return 0; }\n"),
        (
            "kern/late.c",
            "int late_var;\nstatic int hidden(void) { return 1; }\nint (*late_fn)(void) = hidden;\n\
             void\nodd(void)\n{\n#ifdef ODD\n#else\n\tif (late_var) {\n#endif\n#ifdef ODD\n#else\n\t}\n#endif\n#ifdef ODD\n\tif (late_var) {\n#endif\n}\n\
             int\nbehind_odd(void)\n{\n\treturn (1);\n}\n",
        ),
        (
            "kern/asm.S",
            "#include \"assym.inc\"\n#define ENTRY(x) .globl x; x:\nENTRY(asm_fn) old %insn, $PC_X\nasm_local: ret\n.globl asm_other\n.global asm_same\nasm_same\t= asm_local + 4\n",
        ),
        (
            "modules/toecore/Makefile",
            "KMOD= toecore\nSRCS= toecore.c opt_inet.h\n",
        ),
        (
            "netinet/toecore.c",
            "int register_toedev(void) { return 0; }\n",
        ),
        (
            "modules/cxgbe/if_cxgbe/Makefile",
            "SRCS=\tbus_if.h\nSRCS+=\tt4_main.c \\\n\tt4_sge.c\nSRCS+= t4_if.c t4_if.h\n",
        ),
        (
            "dev/cxgbe/t4_main.c",
            "int t4_iterate(void) { return 0; }\n",
        ),
        (
            "dev/cxgbe/t4_sge.c",
            "int t4_wrq_tx_locked(void) { return 0; }\n",
        ),
        ("dev/cxgbe/t4_if.m", ""),
    ] {
        bench.file(name, text);
    }
    bench
}

/// Makes `<name>_if.h` or `.c`, as FreeBSD's does of an interface, with one symbol.
const MAKEOBJOPS: &str = r##"BEGIN {
    name = ARGV[1]; sub(/.*\//, "", name); sub(/\.m$/, "", name)
    part = substr(ARGV[2], 2)
    print (part == "c" ? "int " name "_desc;" : "#define " name "_h") > (name "." part)
    exit
}
"##;

/// Symbols by plain definition, by macro, under an option that is on and one that is off.
const ALWAYS: &str = "\
#include <machine/x.h>
#define VNET_DEFINE(t, n) t vnet_entry_##n
#define MAKER(n) int made_by_macro_##n = 1
VNET_DEFINE(int, tcp_do_ecn);
MAKER(one);
int always_fn(void) { return 0; }
#ifdef INVARIANTS
int assert_fn(void) { return 0; }
#endif
#ifdef VIMAGE
int vimage_fn(void) { return 0; }
#endif
";

fn given(bench: &Bench) -> Given {
    Given {
        sysdir: bench.dir.clone(),
        ..Given::default()
    }
}

fn source(bench: &Bench, options: &[&str]) -> Source {
    let kernopts = options.iter().map(|o| (*o).to_owned()).collect();
    Source::open(&Given {
        kernopts,
        ..given(bench)
    })
    .expect("a tree")
}

#[test]
fn the_release_names_the_folder_of_the_modules() {
    assert_eq!(source(&tree(), &[]).release, "12.1");
    assert_eq!(revision("X\nREVISION=\"15.0\"\n"), Some("15.0".into()));
    assert_eq!(revision("REVISION=\"../..\"\n"), None);
    assert_eq!(revision("REVISION=\n"), None);
}

#[test]
fn options_are_those_of_the_configuration() {
    let bench = tree();
    let headers = source(&bench, &[])
        .config
        .headers(&bench.dir)
        .expect("headers");
    let text = |name: &str| headers.get(name).map(String::as_str);
    assert_eq!(text("opt_global.h"), Some("#define VIMAGE 1\n"));
    assert_eq!(
        text("opt_inet.h"),
        Some("#define INET 1\n#define TCP_OFFLOAD 1\n")
    );
    assert_eq!(text("opt_ratelimit.h"), Some(""), "taken back by nooptions");
    assert_eq!(text("opt_size.h"), Some("#define SIZE 0x10\n"));
    assert_eq!(text("opt_cpu.h"), Some("#define HAMMER 1\n"));
    assert_eq!(text("opt_loop.h"), Some("#define DEV_LOOP 1\n"));
    assert_eq!(text("opt_maxusers.h"), Some("#define MAXUSERS 0\n"));
}

#[test]
fn options_given_to_make_come_on_top_and_must_exist() {
    let bench = tree();
    let config = source(&bench, &["INVARIANTS", "SIZE=7"]).config;
    let headers = config.headers(&bench.dir).expect("headers");
    assert_eq!(
        headers.get("opt_global.h").map(String::as_str),
        Some("#define INVARIANTS 1\n#define VIMAGE 1\n")
    );
    assert_eq!(
        headers.get("opt_size.h").map(String::as_str),
        Some("#define SIZE 7\n")
    );
    let config = source(&bench, &["INVARIANT"]).config;
    let said = config.headers(&bench.dir).expect_err("misspelt");
    assert!(said.contains("INVARIANT is no option"), "{said}");
}

#[test]
fn files_of_the_kernel_follow_its_options_and_devices() {
    let bench = tree();
    let files = source(&bench, &[])
        .config
        .sources(&bench.dir)
        .expect("files");
    let files: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
    let wanted = [
        "kern/always.c",
        "kern/asm.S",
        "kern/gone.c",
        "kern/inet.c",
        "kern/late.c",
        "kern/made_if.m",
        "kern/rules.c",
    ];
    assert_eq!(files, wanted);
}

#[test]
fn a_configuration_that_is_none_is_refused() {
    let bench = tree();
    bench.file("amd64/conf/ODD", "optoins INET\n");
    let said = Config::open(&bench.dir, "ODD", &[]).expect_err("a misspelt keyword");
    assert!(said.contains("`optoins` is no keyword"), "{said}");
    bench.file("amd64/conf/LOOP", "include \"LOOP\"\n");
    let said = Config::open(&bench.dir, "LOOP", &[]).expect_err("a loop");
    assert!(said.contains("includes itself"), "{said}");
    let said = Config::open(&bench.dir, "NONE", &[]).expect_err("no file");
    assert!(said.contains("cannot read"), "{said}");
}

#[test]
fn a_kernels_build_folder_must_be_one_and_says_the_options_alone() {
    let bench = tree();
    let kernel = bench.dir.join("obj");
    std::fs::create_dir(&kernel).expect("folder");
    let with = |kernopts: Vec<String>| Given {
        kernbuilddir: Some(kernel.clone()),
        kernopts,
        ..given(&bench)
    };
    let said = Source::open(&with(Vec::new())).expect_err("empty");
    assert!(said.contains("opt_global.h is missing"), "{said}");
    bench.file("obj/opt_global.h", "#define WITNESS 1\n");
    let said = Source::open(&with(vec!["INVARIANTS".into()])).expect_err("two sources");
    assert!(said.contains("both say what the options are"), "{said}");

    let source = Source::open(&with(Vec::new())).expect("a kernel");
    let made = bench.dir.join("made");
    std::fs::create_dir(&made).expect("folder");
    generate::headers(&Real, &source, &made).expect("headers");
    let text = std::fs::read_to_string(made.join("opt_global.h")).expect("options");
    assert_eq!(text, "#define WITNESS 1\n");
    assert!(
        !made.join("opt_inet.h").exists(),
        "GENERIC's is not mixed in"
    );
}

#[test]
fn files_of_a_built_kernel_follow_what_its_folder_says() {
    let bench = tree();
    std::fs::create_dir(bench.dir.join("obj")).expect("folder");
    for (name, text) in [
        ("opt_global.h", "#define INVARIANTS 1\n"),
        ("opt_inet.h", "#define INET 1\n"),
        ("opt_size.h", "#define SIZE 0x20\n"),
        ("opt_loop.h", ""),
    ] {
        bench.file(&format!("obj/{name}"), text);
    }
    let given = Given {
        kernbuilddir: Some(bench.dir.join("obj")),
        ..given(&bench)
    };
    let config = Source::open(&given).expect("a kernel").config;
    let options: Vec<&str> = config.options.keys().map(String::as_str).collect();
    // opt_cpu.h is not there, so HAMMER stays as GENERIC has it.
    assert_eq!(options, ["HAMMER", "INET", "INVARIANTS", "SIZE"]);
    assert_eq!(config.options.get("SIZE"), Some(&Some("0x20".to_owned())));
    assert!(!config.devices.contains("loop"));
    let files = config.sources(&bench.dir).expect("files");
    let has = |name: &str| files.iter().any(|f| f == Path::new(name));
    assert!(has("kern/off.c"), "inet and no vimage");
    assert!(!has("kern/inet.c"), "no loop");
    let found = look_up_in(&bench, &given, &["assert_fn", "off_fn"], &ALL);
    assert_eq!(found, ["assert_fn: kernel", "off_fn: kernel"]);
}

#[test]
fn headers_are_generated_by_the_trees_own_scripts() {
    let bench = tree();
    let made = bench.dir.join("made");
    std::fs::create_dir(&made).expect("folder");
    generate::headers(&Real, &source(&bench, &[]), &made).expect("headers");
    for name in [
        "device_if.h",
        "bus_if.h",
        "pci_if.h",
        "opt_inet.h",
        "machine/x.h",
        "x86/y.h",
    ] {
        assert!(made.join(name).is_file(), "{name}");
    }
    bench.file("tools/makeobjops.awk", "BEGIN { exit 1 }\n");
    let said = generate::headers(&Real, &source(&bench, &[]), &made).expect_err("awk fails");
    assert!(said.contains("generating an interface failed"), "{said}");
}

/// Looks names up in the tree, as a module that depends on all would.
fn look_up(bench: &Bench, options: &[&str], names: &[&str], by: &[Provider]) -> Vec<String> {
    let kernopts = options.iter().map(|o| (*o).to_owned()).collect();
    let given = Given {
        kernopts,
        ..given(bench)
    };
    look_up_in(bench, &given, names, by)
}

fn look_up_in(bench: &Bench, given: &Given, names: &[&str], by: &[Provider]) -> Vec<String> {
    let source = Source::open(given).expect("a tree");
    let dir = |name: &str| {
        let dir = bench.dir.join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).expect("folder");
        dir
    };
    let made = dir("made");
    generate::headers(&Real, &source, &made).expect("headers");
    let mut finder = Finder::new(&Real, &source, &made, &dir("scratch")).expect("finder");
    let names: BTreeSet<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let report = finder.find(&names, by);
    assert_eq!(report.found.len() + report.missing.len(), names.len());
    let found = report
        .found
        .iter()
        .map(|(n, p)| format!("{n}: {}", p.name()));
    let missing = report
        .missing
        .iter()
        .map(|(n, why)| format!("{n}: no: {why}"));
    found.chain(missing).collect()
}

const ALL: [Provider; 3] = [Provider::Kernel, Provider::Toecore, Provider::Cxgbe];

#[test]
fn a_symbol_is_found_with_whoever_defines_it() {
    let found = look_up(
        &tree(),
        &[],
        &[
            "always_fn",
            "asm_fn",
            "asm_same",
            "behind_odd",
            "late_var",
            "made_if_desc",
            "register_toedev",
            "t4_if_desc",
            "t4_iterate",
            "t4_wrq_tx_locked",
            "vimage_fn",
            "vnet_entry_tcp_do_ecn",
            "made_by_macro_one",
        ],
        &ALL,
    );
    let wanted = [
        "always_fn: kernel",
        "asm_fn: kernel",
        "asm_same: kernel",
        "behind_odd: kernel",
        "late_var: kernel",
        "made_by_macro_one: kernel",
        "made_if_desc: kernel",
        "register_toedev: toecore",
        "t4_if_desc: if_cxgbe",
        "t4_iterate: if_cxgbe",
        "t4_wrq_tx_locked: if_cxgbe",
        "vimage_fn: kernel",
        "vnet_entry_tcp_do_ecn: kernel",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_misspelt_symbol_is_not_found() {
    let bench = tree();
    let names = [
        "alway_fn",
        "vnet_entry_tcp_do_enc",
        "assert_fn",
        "asm_local",
        "asm_other",
        "hidden",
        "off_fn",
    ];
    let said = look_up(&bench, &[], &names, &ALL);
    let nobody = "no file of the kernel configuration defines it";
    let option = "it is static, or an option it needs is off";
    assert_eq!(
        said,
        [
            format!("alway_fn: no: {nobody}"),
            format!("asm_local: no: {nobody}"),
            format!("asm_other: no: {nobody}"),
            format!("assert_fn: no: in kern/always.c {option}"),
            "hidden: no: in kern/late.c it is static".to_owned(),
            format!("off_fn: no: {nobody}"),
            format!("vnet_entry_tcp_do_enc: no: {nobody}"),
        ]
    );
    let said = look_up(&bench, &["INVARIANTS"], &["assert_fn"], &ALL);
    assert_eq!(said, ["assert_fn: kernel"]);
}

#[test]
fn a_symbol_of_a_module_that_is_not_depended_on_does_not_count() {
    let said = look_up(&tree(), &[], &["t4_iterate"], &[Provider::Kernel]);
    assert_eq!(
        said,
        ["t4_iterate: no: dev/cxgbe/t4_main.c is in if_cxgbe, which it does not depend on"]
    );
}

#[test]
fn a_file_that_does_not_compile_is_named() {
    let said = look_up(&tree(), &[], &["inet_fn"], &ALL);
    let [said] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert!(said.contains("kern/inet.c does not compile here"), "{said}");
    assert!(said.contains("INET_VALUE"), "{said}");
}

#[test]
fn bounds_of_linker_sets_are_nobodys() {
    let bench = Bench::new();
    let object = bench.object(
        "m",
        "extern int other, __start_set_x; int *a = &other, *b = &__start_set_x;",
        &[],
    );
    let bytes = std::fs::read(object).expect("object");
    let names: Vec<String> = undefined(&bytes).expect("an object").into_iter().collect();
    assert_eq!(names, ["other"]);
    assert!(undefined(b"text").is_err());
}

#[test]
fn a_tree_without_a_release_is_refused() {
    let bench = tree();
    bench.file("conf/newvers.sh", "REVISION=CURRENT\n");
    let said = Source::open(&given(&bench)).expect_err("no release");
    assert!(said.contains("sets no REVISION"), "{said}");
    let nowhere = Given {
        sysdir: Path::new("/nonexistent").into(),
        ..Given::default()
    };
    let said = Source::open(&nowhere).expect_err("no tree");
    assert!(said.contains("is not the sys folder"), "{said}");
}
