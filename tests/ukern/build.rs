//! Lays out the FreeBSD 15 kernel's structures for the user-space kernel.
//!
//! The headers come from `TOEHOLD_HEADERS` (a directory that holds `x86_64-freebsd-none` and
//! `generic-freebsd`), or from the workspace's `target/hdr/15`, where `make setup` puts them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn headers(root: &Path) -> PathBuf {
    println!("cargo:rerun-if-env-changed=TOEHOLD_HEADERS");
    let dir = env::var_os("TOEHOLD_HEADERS")
        .map(PathBuf::from)
        .unwrap_or_else(|| root.join("target/hdr/15"));
    assert!(
        dir.join("generic-freebsd/sys/param.h").exists(),
        "no FreeBSD kernel headers in {}: run `make setup`, or set TOEHOLD_HEADERS",
        dir.display()
    );
    dir
}

/// Concurrency Kit's headers share `/usr/include` with glibc's, which must stay out of sight.
fn concurrency_kit(out: &Path) -> PathBuf {
    let dir = out.join("ck");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("directory for Concurrency Kit");
    for entry in fs::read_dir("/usr/include")
        .expect("/usr/include")
        .flatten()
    {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("ck_") {
            let to = dir.join(&name);
            std::os::unix::fs::symlink(entry.path(), to).expect("link a ck header");
        }
    }
    // ck_md.h and the per-architecture files sit in subdirectories.
    for sub in ["gcc", "spinlock"] {
        let from = Path::new("/usr/include").join(sub);
        if from.is_dir() && !dir.join(sub).exists() {
            std::os::unix::fs::symlink(from, dir.join(sub)).expect("link a ck directory");
        }
    }
    assert!(
        dir.join("ck_queue.h").exists(),
        "ck_queue.h is missing: install libck-dev"
    );
    dir
}

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo"));
    let root = here.join("../..");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo"));
    let hdr = headers(&root);
    let ck = concurrency_kit(&out);
    let opt = root.join("sys/standin/opt");

    println!("cargo:rerun-if-changed=wrapper.h");
    println!("cargo:rerun-if-changed={}", opt.display());
    // The tests compile scratch modules with the same flags.
    println!("cargo:rustc-env=UKERN_HDR={}", hdr.display());
    println!("cargo:rustc-env=UKERN_CK={}", ck.display());
    println!("cargo:rustc-env=UKERN_OPT={}", opt.display());

    let mut args: Vec<String> = [
        "--target=x86_64-unknown-freebsd15.0",
        "-nostdlibinc",
        "-ffreestanding",
        "-D_KERNEL",
        "-DKLD_MODULE",
        "-D__FreeBSD_version=1500068",
        "-mcmodel=kernel",
        "-mno-red-zone",
        "-std=gnu17",
        "-include",
        "opt_global.h",
    ]
    .map(String::from)
    .to_vec();
    args.push(format!("-I{}", opt.display()));
    for dir in [
        hdr.join("x86_64-freebsd-none"),
        hdr.join("generic-freebsd"),
        ck,
    ] {
        args.push("-isystem".into());
        args.push(dir.display().to_string());
    }

    let bindings = bindgen::Builder::default()
        .header(here.join("wrapper.h").display().to_string())
        .clang_args(args)
        .use_core()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .ignore_functions()
        .derive_default(false)
        .derive_debug(false)
        .derive_copy(true)
        .layout_tests(true)
        .generate_comments(false)
        .prepend_enum_name(false)
        .blocklist_var("__start_set_.*|__stop_set_.*")
        // The x87 and SSE save areas carry types of more than 16-byte alignment nobody here uses.
        .opaque_type("savefpu.*|amd64tss|monitorbuf")
        .generate()
        .expect("bindgen over the FreeBSD headers");
    bindings
        .write_to_file(out.join("sys.rs"))
        .expect("write sys.rs");
}
