//! Turns the shim's contracts into Rust declarations.
//!
//! The contracts use fixed-size integers and opaque pointers only, so they are read without
//! any FreeBSD header, and what comes out serves every release.

use std::env;
use std::path::{Path, PathBuf};

/// Module of this crate, header below `shim/`, and what to take from it.
const CONTRACTS: [(&str, &str, &str); 2] = [
    ("toehold", "toehold.h", "th_.*|toehold_.*|TH_.*|TOEHOLD_.*"),
    ("t5sim", "t5sim/t5sim.h", "ts_.*|t5sim_.*|TS_.*|T5SIM_.*"),
];

const LIBCLANG: &str = "/usr/lib/llvm-19/lib";

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(1);
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");
    if env::var_os("LIBCLANG_PATH").is_none() && Path::new(LIBCLANG).is_dir() {
        // SAFETY: a build script starts with one thread, and none is started before this.
        unsafe { env::set_var("LIBCLANG_PATH", LIBCLANG) };
    }
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let shim = here.join("../shim");
    for (module, header, names) in CONTRACTS {
        let path = shim.join(header);
        println!("cargo::rerun-if-changed={}", path.display());
        if !path.is_file() {
            fail(&format!("toehold-sys: shim/{header} is missing"));
        }
        let bindings = bindgen::Builder::default()
            .header(path.display().to_string())
            .clang_args([
                "--target=x86_64-unknown-freebsd15.0",
                "-ffreestanding",
                "-nostdlibinc",
                "-std=gnu17",
                "-DTOEHOLD_BINDGEN",
            ])
            .clang_arg(format!("-I{}", shim.display()))
            .use_core()
            .ctypes_prefix("::core::ffi")
            .rust_edition(bindgen::RustEdition::Edition2024)
            .allowlist_function(names)
            .allowlist_type(names)
            .allowlist_var(names)
            .derive_default(true)
            .generate_comments(false)
            .formatter(bindgen::Formatter::None)
            .generate()
            .unwrap_or_else(|e| fail(&format!("toehold-sys: shim/{header}: {e}")));
        bindings
            .write_to_file(out.join(format!("{module}.rs")))
            .unwrap_or_else(|e| fail(&format!("toehold-sys: {module}.rs: {e}")));
    }
}
