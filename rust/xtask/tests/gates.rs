//! Each gate lets a good module pass and stops one with the planted fault.

mod common;

use common::{Bench, METADATA, good, spec};
use xtask::gate::{self, Spec};
use xtask::run::Real;

/// What the gates say of a module; empty if they let it pass.
fn verdict(source: &str, extra: &[&str], exports: &[&str], spec: &Spec) -> String {
    let bench = Bench::new();
    let path = bench.module(source, extra, exports);
    gate::check_file(&Real, &path, spec)
        .err()
        .unwrap_or_default()
}

#[track_caller]
fn stopped(source: &str, extra: &[&str], wanted: &str) {
    let said = verdict(source, extra, &[], &spec());
    assert!(said.contains(wanted), "wanted `{wanted}` in: {said}");
    assert_eq!(said.lines().count(), 2, "one fault only: {said}");
}

#[test]
fn a_good_module_passes() {
    assert_eq!(verdict(&good(), &[], &[], &spec()), "");
}

#[test]
fn a_got_relocation_is_stopped() {
    let source = format!("{}int th_got(void) {{ return helper(1) + value; }}", good());
    let said = verdict(&source, &["-fpie", "-mcmodel=small"], &[], &spec());
    assert!(said.contains("GOTPCREL"), "{said}");
}

#[test]
fn a_32_bit_absolute_relocation_is_stopped() {
    let source = format!(
        "{}unsigned th_low(void) {{ unsigned a; __asm__(\"movl $value, %0\" : \"=r\"(a)); return a; }}",
        good()
    );
    stopped(&source, &[], "relocation: 1 of type R_X86_64_32 in .text");
}

#[test]
fn relocations_of_sections_that_are_not_loaded_do_not_count() {
    let source = format!(
        "{}__asm__(\".section .notes,\\\"\\\",@progbits\\n.long value\\n.text\");",
        good()
    );
    assert_eq!(verdict(&source, &[], &[], &spec()), "");
}

#[test]
fn an_import_that_is_not_listed_is_stopped_by_name() {
    let source = format!(
        "{}extern void stranger(void); void th_s(void) {{ stranger(); }}",
        good()
    );
    stopped(
        &source,
        &[],
        "import: stranger is undefined and not in shim/imports-toehold.txt",
    );
}

#[test]
fn bounds_of_linker_sets_need_no_listing() {
    let source = format!(
        "{}extern char __start_set_vnet[], __stop_set_vnet[];
         long th_n(void) {{ return __stop_set_vnet - __start_set_vnet; }}",
        good()
    );
    assert_eq!(verdict(&source, &[], &[], &spec()), "");
}

#[test]
fn symbols_are_local_unless_exported() {
    let bench = Bench::new();
    let path = bench.module(&good(), &[], &["th_entry"]);
    let said = gate::check_file(&Real, &path, &spec()).expect_err("an unexpected global");
    assert!(
        said.contains("export: th_entry is global and should not be"),
        "{said}"
    );
    assert!(!said.contains("th_pointer"), "localised: {said}");
    let mut wanted = spec();
    wanted.exports = vec!["th_entry".into()];
    assert_eq!(gate::check_file(&Real, &path, &wanted), Ok(()));
}

#[test]
fn a_missing_export_is_stopped() {
    let mut wanted = spec();
    wanted.exports = vec!["t4_register_uld".into()];
    let said = verdict(&good(), &[], &["t4_register_uld"], &wanted);
    assert!(
        said.contains("t4_register_uld should be global and is not defined"),
        "{said}"
    );
}

#[test]
fn vector_registers_are_stopped() {
    let source = format!(
        "{}double th_d; void th_f(double x) {{ th_d = x * x; }}",
        good()
    );
    stopped(&source, &[], "vector: th_f uses `mulsd\t%xmm0, %xmm0`");
}

#[test]
fn the_x87_stack_is_stopped() {
    let source = format!(
        "{}void th_x87(void) {{ __asm__ volatile(\"fld %st(0)\"); }}",
        good()
    );
    stopped(&source, &[], "vector: th_x87 uses");
}

#[test]
fn x87_instructions_that_name_no_register_are_stopped() {
    let source = format!(
        "{}void th_ld(long double *p) {{ __asm__ volatile(\"fldt (%0)\" :: \"r\"(p)); }}",
        good()
    );
    stopped(&source, &[], "vector: th_ld uses");
}

#[test]
fn a_frame_of_variable_size_is_stopped() {
    let array = format!(
        "{}void th_vla(int n) {{ char a[n]; __asm__ volatile(\"\" :: \"r\"(a) : \"memory\"); }}",
        good()
    );
    stopped(&array, &[], "stack: th_vla has a frame of variable size");
    let lowered = format!(
        "{}void th_sub(void) {{ __asm__ volatile(\"subq %%rax, %%rsp\" ::: \"memory\"); }}",
        good()
    );
    stopped(&lowered, &[], "stack: th_sub has a frame of variable size");
}

#[test]
fn a_big_stack_frame_is_stopped_and_one_at_the_limit_is_not() {
    let with = |size: u32| {
        format!(
            "{}void th_big(void) {{ char a[{size}]; __asm__ volatile(\"\" :: \"r\"(a) : \"memory\"); }}",
            good()
        )
    };
    stopped(
        &with(4000),
        &["-mno-red-zone"],
        "stack: th_big has a frame of",
    );
    assert_eq!(verdict(&with(1900), &["-mno-red-zone"], &[], &spec()), "");
}

#[test]
fn code_of_the_alloc_crate_is_stopped_where_it_is_forbidden() {
    let name = "_RNvMs_NtCs9_5alloc7raw_vec12handle_error";
    let source = format!("{}void {name}(void) {{}}", good());
    stopped(&source, &[], &format!("alloc: {name}"));
    let mut wanted = spec();
    wanted.alloc = true;
    assert_eq!(verdict(&source, &[], &[], &wanted), "");
}

#[test]
fn a_missing_dependency_is_stopped() {
    let source = good().replace("DEPEND(toecore);", "");
    stopped(&source, &[], "metadata: it does not depend on toecore");
}

#[test]
fn a_dependency_on_the_real_driver_is_stopped() {
    let source = format!("{}DEPEND(t4nex);", good());
    stopped(&source, &[], "metadata: it names module t4nex");
}

#[test]
fn a_module_under_another_name_is_stopped() {
    let source = good().replace("MODULE(toehold)", "MODULE(other)");
    let said = verdict(&source, &[], &[], &spec());
    assert!(
        said.contains("metadata: no module toehold is declared"),
        "{said}"
    );
    assert!(
        said.contains("metadata: no version of toehold is declared"),
        "{said}"
    );
}

#[test]
fn a_module_that_would_be_loaded_beside_what_it_replaces_is_stopped() {
    let mut spec = spec();
    spec.versions.push("t4_tom".into());
    let said = verdict(&good(), &[], &[], &spec);
    assert!(
        said.contains("metadata: no version of t4_tom is declared"),
        "{said}"
    );
}

#[test]
fn metadata_that_leads_nowhere_is_stopped() {
    let source = format!(
        "{METADATA}__attribute__((section(\"set_modmetadata_set\"), used)) static void *set_none = 0;"
    );
    let said = verdict(&source, &[], &[], &spec());
    assert!(
        said.contains("metadata: entry at 0 leads nowhere"),
        "{said}"
    );
}

#[test]
fn another_machine_or_file_type_is_stopped() {
    let bench = Bench::new();
    let arm = bench.object(
        "arm",
        "int x;",
        &["--target=aarch64-unknown-freebsd15.0", "-mcmodel=small"],
    );
    let said = gate::check_file(&Real, &arm, &spec()).expect_err("another machine");
    assert!(said.contains("not a relocatable x86-64 file"), "{said}");
    let text = bench.file("text.ko", "hello");
    let said = gate::check_file(&Real, &text, &spec()).expect_err("no object");
    assert!(said.contains("not an object file"), "{said}");
}
